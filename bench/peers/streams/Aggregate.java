import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.Suppressed.BufferConfig;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.WindowedSerdes;

/**
 * Aggregates the frames of a topic with Kafka Streams as its manual shows it,
 * exactly once, and prints how fast that was as JSON.
 */
public final class Aggregate {
    private static final Serde<byte[]> KEYS = Serdes.ByteArray();
    private static final Serde<Frame> FRAMES = Serdes.serdeFrom(
            (topic, frame) -> { throw new UnsupportedOperationException("frames are only read"); },
            (topic, payload) -> new Frame(payload));
    private static final Serde<Layer> LAYERS = Serdes.serdeFrom(
            (topic, layer) -> layer == null ? null : layer.encode(),
            (topic, bytes) -> bytes == null ? null : Layer.decode(bytes));

    private final String topic;
    private final String output;
    private final long records;
    private final Duration window;
    private final Duration grace;

    private final AtomicLong began = new AtomicLong(); // nanoseconds, as the next
    private final AtomicLong taken = new AtomicLong();
    private final AtomicLong samples = new AtomicLong();
    private final AtomicLong windows = new AtomicLong(); // of layers, that have closed
    private final AtomicLong closed = new AtomicLong(); // the samples in them
    private final CountDownLatch finished = new CountDownLatch(1);
    private final AtomicReference<Throwable> wrong = new AtomicReference<>();
    private volatile long ended;

    private Aggregate(String topic, String output, long records, Duration window, Duration grace) {
        this.topic = topic;
        this.output = output;
        this.records = records;
        this.window = window;
        this.grace = grace;
    }

    public static void main(String[] args) throws Exception {
        if (args.length != 8) {
            System.err.println("usage: Aggregate BROKERS TOPIC RECORDS APPLICATION THREADS COMMIT_MS WINDOW_MS GRACE_MS");
            System.exit(2);
        }
        String brokers = args[0];
        String application = args[3];
        Path state = Files.createTempDirectory("oona-streams-");
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, args[4]);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, args[5]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, state.toString());
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 512L << 20); // all open windows; by default, 10 MiB
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4"); // as Oona's
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 1 << 20); // by default, 16 KiB: less than a state
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 8 << 20); // likewise
        String output = application + "-rollups";
        try (Admin admin = Admin.create(settings)) {
            admin.createTopics(List.of(new NewTopic(output, Optional.empty(), Optional.empty()))).all().get();
            new Aggregate(args[1], output, Long.parseLong(args[2]), Duration.ofMillis(Long.parseLong(args[6])), Duration.ofMillis(Long.parseLong(args[7]))).run(settings);
            // Who runs this deletes the group and the topics, however it ends.
        }
    }

    private void run(Properties settings) throws Exception {
        KafkaStreams streams = new KafkaStreams(topology(), settings);
        streams.setUncaughtExceptionHandler(e -> {
            wrong.compareAndSet(null, e);
            finished.countDown();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
        boolean whole = finished.await(3, TimeUnit.MINUTES);
        streams.close(Duration.ofSeconds(30)); // which emits and commits what was still cached
        streams.cleanUp();
        if (wrong.get() != null) {
            throw new IllegalStateException("Kafka Streams ended", wrong.get());
        }
        if (!whole) {
            throw new IllegalStateException(taken + " records of " + records + " were processed in 3 minutes");
        }
        System.out.printf(Locale.ROOT, "{\"records\": %d, \"samples\": %d, \"seconds\": %.6f, \"windows\": %d, \"closed_samples\": %d}%n",
                taken.get(), samples.get(), (ended - began.get()) / 1e9, windows.get(), closed.get());
    }

    private Topology topology() {
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(topic, Consumed.with(KEYS, FRAMES).withTimestampExtractor((r, latest) -> ((Frame) r.value()).observedAt / 1000))
                .groupByKey(Grouped.with(KEYS, FRAMES)) // a layer's frames have its key: nothing moves
                .windowedBy(TimeWindows.ofSizeAndGrace(window, grace))
                .aggregate(Layer::new, (key, frame, layer) -> fold(frame, layer), Materialized.with(KEYS, LAYERS))
                .suppress(Suppressed.untilWindowCloses(BufferConfig.unbounded()))
                .toStream()
                .peek((key, layer) -> {
                    windows.incrementAndGet();
                    closed.addAndGet(layer.samples());
                })
                .to(output, Produced.with(WindowedSerdes.timeWindowedSerdeFrom(byte[].class, window.toMillis()), LAYERS));
        return builder.build();
    }

    private Layer fold(Frame frame, Layer layer) {
        began.compareAndSet(0, System.nanoTime());
        layer.add(frame);
        samples.addAndGet(frame.samples());
        if (taken.incrementAndGet() == records) {
            ended = System.nanoTime();
            finished.countDown();
        }
        return layer;
    }
}
