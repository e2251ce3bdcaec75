import java.io.File;
import java.nio.ByteBuffer;
import java.util.HexFormat;
import java.util.StringJoiner;
import org.apache.avro.file.DataFileReader;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;

/** Prints the records of archive files as JSON, one on each line, as Java's Avro reads them. */
public class Dump {
  static String hexed(Object value) {
    if (value == null) {
      return "null";
    }
    ByteBuffer buffer = ((ByteBuffer) value).duplicate();
    byte[] bytes = new byte[buffer.remaining()];
    buffer.get(bytes);
    return '"' + HexFormat.of().formatHex(bytes) + '"';
  }

  public static void main(String[] names) throws Exception {
    for (String name : names) {
      try (var reader = new DataFileReader<>(new File(name), new GenericDatumReader<GenericRecord>())) {
        for (GenericRecord r : reader) {
          var headers = new StringJoiner(",", "[", "]");
          for (Object h : (Iterable<?>) r.get("headers")) {
            var header = (GenericRecord) h;
            headers.add("[\"" + header.get("name") + "\"," + hexed(header.get("value")) + "]");
          }
          System.out.printf(
              "{\"topic\":\"%s\",\"partition\":%d,\"incarnation\":%d,\"offset\":%d,\"append_time\":%d,\"key\":%s,\"headers\":%s,\"value\":%s}%n",
              r.get("topic"), r.get("partition"), r.get("incarnation"), r.get("offset"), r.get("append_time"),
              hexed(r.get("key")), headers, hexed(r.get("value")));
        }
      }
    }
  }
}
