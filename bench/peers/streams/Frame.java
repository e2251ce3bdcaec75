import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;

/**
 * A frame of the topic seed.metrics, decoded by hand from the single-object
 * encoding of seed_metrics.v1.avsc. What the aggregation does not need is
 * skipped; Avro's own library would make an object of each float.
 */
final class Frame {
    /** The marker of single-object encoding, and the fingerprint of the schema, the least byte first. */
    private static final byte[] FRAMING = {(byte) 0xc3, 0x01, (byte) 0x93, (byte) 0x8f, 0x0a, (byte) 0xda, 0x0e, 0x67, 0x29, 0x50};

    final long observedAt; // microseconds since the Unix epoch
    final String[] metrics;
    final float[][] values; // by metric

    private final ByteBuffer in;

    Frame(byte[] payload) {
        in = ByteBuffer.wrap(payload).order(ByteOrder.LITTLE_ENDIAN);
        for (byte b : FRAMING) {
            if (in.get() != b) {
                throw new IllegalArgumentException("a record is not a frame of seed_metrics.v1.avsc");
            }
        }
        for (int i = 0; i < 4; i++) { // run, layer, timeline, producer
            skip(number());
        }
        number(); // the producer's epoch
        number(); // sequence
        observedAt = number();
        number(); // step
        for (long seeds = items(); seeds > 0; seeds = items()) {
            for (; seeds > 0; seeds--) {
                number();
            }
        }
        skip(number()); // states
        String[] names = new String[0];
        float[][] columns = new float[0][];
        for (long more = items(); more > 0; more = items()) {
            int from = names.length;
            names = java.util.Arrays.copyOf(names, from + (int) more);
            columns = java.util.Arrays.copyOf(columns, from + (int) more);
            for (int i = from; i < names.length; i++) {
                names[i] = text();
                columns[i] = floats();
            }
        }
        metrics = names;
        values = columns; // tensors follow, which nobody asks for
    }

    int samples() {
        int n = 0;
        for (float[] column : values) {
            n += column.length;
        }
        return n;
    }

    /** The number of items of an array's next block, 0 after the last. */
    private long items() {
        long n = number();
        if (n < 0) {
            number(); // the block's size in bytes
            return -n;
        }
        return n;
    }

    private float[] floats() {
        float[] out = new float[0];
        for (long more = items(); more > 0; more = items()) {
            int from = out.length;
            out = java.util.Arrays.copyOf(out, from + (int) more);
            in.asFloatBuffer().get(out, from, (int) more);
            skip(4 * more);
        }
        return out;
    }

    private String text() {
        byte[] bytes = new byte[(int) number()];
        in.get(bytes);
        return new String(bytes, StandardCharsets.UTF_8);
    }

    private void skip(long bytes) {
        in.position(in.position() + (int) bytes);
    }

    /** A zig-zag varint, which is an int or a long. */
    private long number() {
        long n = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            byte b = in.get();
            n |= (long) (b & 0x7f) << shift;
            if (b >= 0) {
                return n >>> 1 ^ -(n & 1);
            }
        }
        throw new IllegalArgumentException("a varint has more than ten bytes");
    }
}
