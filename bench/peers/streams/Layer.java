import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/** What a layer's frames of a window are folded into: moments and a histogram of each metric. */
final class Layer {
    private final Map<String, Metric> metrics = new LinkedHashMap<>();

    Layer add(Frame frame) {
        for (int i = 0; i < frame.metrics.length; i++) {
            metrics.computeIfAbsent(frame.metrics[i], name -> new Metric()).add(frame.values[i]);
        }
        return this;
    }

    long samples() {
        return metrics.values().stream().mapToLong(m -> m.count).sum();
    }

    byte[] encode() {
        int size = 4;
        for (Map.Entry<String, Metric> e : metrics.entrySet()) {
            size += 4 + 3 * e.getKey().length() + e.getValue().size();
        }
        ByteBuffer out = ByteBuffer.allocate(size).putInt(metrics.size());
        metrics.forEach((name, metric) -> {
            byte[] bytes = name.getBytes(StandardCharsets.UTF_8);
            out.putInt(bytes.length).put(bytes);
            metric.encode(out);
        });
        return java.util.Arrays.copyOf(out.array(), out.position());
    }

    static Layer decode(byte[] bytes) {
        Layer layer = new Layer();
        ByteBuffer in = ByteBuffer.wrap(bytes);
        for (int n = in.getInt(); n > 0; n--) {
            byte[] name = new byte[in.getInt()];
            in.get(name);
            layer.metrics.put(new String(name, StandardCharsets.UTF_8), new Metric(in));
        }
        return layer;
    }

    /** Six moments (mean and deviation come of three of them) and a histogram of 32 buckets an octave. */
    private static final class Metric {
        long count;
        double sum;
        double squares;
        float least = Float.POSITIVE_INFINITY;
        float highest = Float.NEGATIVE_INFINITY;
        long zeros;
        final Buckets positive;
        final Buckets negative;

        Metric() {
            positive = new Buckets();
            negative = new Buckets();
        }

        void add(float[] values) {
            for (float x : values) {
                if (x != x) {
                    continue; // not measured
                }
                count++;
                sum += x;
                squares += (double) x * x;
                least = Math.min(least, x);
                highest = Math.max(highest, x);
                if (x > 0) {
                    positive.add(x);
                } else if (x < 0) {
                    negative.add(-x);
                } else {
                    zeros++;
                }
            }
        }

        int size() {
            return 4 * 8 + 2 * 4 + positive.size() + negative.size();
        }

        void encode(ByteBuffer out) {
            out.putLong(count).putDouble(sum).putDouble(squares).putFloat(least).putFloat(highest).putLong(zeros);
            positive.encode(out);
            negative.encode(out);
        }

        Metric(ByteBuffer in) {
            count = in.getLong();
            sum = in.getDouble();
            squares = in.getDouble();
            least = in.getFloat();
            highest = in.getFloat();
            zeros = in.getLong();
            positive = new Buckets(in);
            negative = new Buckets(in);
        }
    }

    /** Counts by the exponent of a value and the first five bits of its fraction: linear within an octave. */
    private static final class Buckets {
        private static final int SHIFT = 23 - 5;

        int first;
        int[] counts;

        Buckets() {
            counts = new int[0];
        }

        void add(float x) {
            int at = (Float.floatToRawIntBits(x) >>> SHIFT) - first;
            if (at < 0 || at >= counts.length) {
                at = grow(at + first);
            }
            counts[at]++;
        }

        /** Makes room for a bucket, an octave more than is needed, and returns where it is. */
        private int grow(int bucket) {
            int from = Math.max(0, bucket - 32);
            int to = bucket + 32;
            if (counts.length > 0) {
                from = Math.min(first, from);
                to = Math.max(first + counts.length, to);
            }
            int[] wider = new int[to - from];
            System.arraycopy(counts, 0, wider, counts.length == 0 ? 0 : first - from, counts.length);
            first = from;
            counts = wider;
            return bucket - first;
        }

        int size() {
            return 8 + 4 * counts.length;
        }

        void encode(ByteBuffer out) {
            out.putInt(first).putInt(counts.length).asIntBuffer().put(counts);
            out.position(out.position() + 4 * counts.length);
        }

        Buckets(ByteBuffer in) {
            first = in.getInt();
            counts = new int[in.getInt()];
            in.asIntBuffer().get(counts);
            in.position(in.position() + 4 * counts.length);
        }
    }
}
