package nearside;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.lettuce.core.Consumer;
import io.lettuce.core.KeyScanCursor;
import io.lettuce.core.RedisCommandExecutionException;
import io.lettuce.core.RedisNoScriptException;
import io.lettuce.core.ScanArgs;
import io.lettuce.core.ScanIterator;
import io.lettuce.core.ScriptOutputType;
import io.lettuce.core.SetArgs;
import io.lettuce.core.StreamMessage;
import io.lettuce.core.XGroupCreateArgs;
import io.lettuce.core.XReadArgs;
import io.lettuce.core.XReadArgs.StreamOffset;
import io.lettuce.core.api.StatefulConnection;
import io.lettuce.core.cluster.api.sync.RedisClusterCommands;
import io.lettuce.core.pubsub.RedisPubSubAdapter;
import io.lettuce.core.pubsub.StatefulRedisPubSubConnection;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInfo;
import org.junit.jupiter.api.Timeout;

/** What each kind of Lettuce's clients is to do. */
@Timeout(60)
abstract class LettuceFeatures {
    private static final int PATIENCE_S = 30;

    private final Queue<StatefulConnection<?, ?>> connections = new ConcurrentLinkedQueue<>();
    private RedisClusterCommands<String, String> redis;
    private String tag;

    /** Commands on a connection of its own. */
    abstract RedisClusterCommands<String, String> connect();

    abstract StatefulRedisPubSubConnection<String, String> connectPubSub();

    /** The connection is closed after the test. */
    void opened(StatefulConnection<?, ?> connection) {
        connections.add(connection);
    }

    @BeforeEach
    void begin(TestInfo test) {
        redis = connect();
        tag = "{" + getClass().getSimpleName() + "." + test.getTestMethod().orElseThrow().getName() + "}";
    }

    @AfterEach
    void end() {
        connections.forEach(StatefulConnection::close);
    }

    String key(String name) {
        return tag + name;
    }

    @Test
    void strings() {
        assertEquals("OK", redis.set(key("k"), "v"));
        assertEquals("v", redis.get(key("k")));
        assertEquals("v", redis.get(key("k")));
        assertNull(redis.get(key("nosuch")));
        assertNull(redis.set(key("k"), "w", SetArgs.Builder.nx()));
        assertEquals(5, redis.incrby(key("n"), 5));
        // Keys of several slots.
        assertEquals("OK", redis.mset(Map.of(tag + "a", "1", "{" + tag + "2}b", "2")));
        assertEquals(2, redis.del(tag + "a", "{" + tag + "2}b"));
        var error = assertThrows(RedisCommandExecutionException.class, () -> redis.lpush(key("k"), "x"));
        assertEquals("WRONGTYPE Operation against a key holding the wrong kind of value", error.getMessage());
    }

    @Test
    void hashesAndLists() {
        assertEquals(2, redis.hset(key("h"), Map.of("f", "v", "g", "w")));
        assertEquals(Map.of("f", "v", "g", "w"), redis.hgetall(key("h")));
        assertEquals(3, redis.rpush(key("l"), "message", "a", "b"));
        assertEquals(List.of("message", "a", "b"), redis.lrange(key("l"), 0, -1));
    }

    @Test
    void bigValues() {
        String big = "x\u00e4\u0000".repeat(2 << 20);
        assertEquals("OK", redis.set(key("k"), big));
        assertEquals(big, redis.get(key("k")));
        assertEquals(big, redis.get(key("k")));
    }

    @Test
    void streamsShareAGroup() throws Exception {
        Set<String> added = new TreeSet<>();
        for (String number : numbersBelow(200)) added.add(redis.xadd(key("x"), Map.of("n", number)));
        redis.xgroupCreate(StreamOffset.from(key("x"), "0"), "group");
        AtomicInteger names = new AtomicInteger();
        List<List<String>> seen = Servers.atOnce(Servers.times(3, () -> consume("consumer" + names.incrementAndGet())));
        assertEquals(new ArrayList<>(added), seen.stream().flatMap(List::stream).sorted().toList());
        assertEquals(0, redis.xpending(key("x"), "group").getCount());
    }

    private List<String> consume(String name) {
        RedisClusterCommands<String, String> own = connect();
        List<String> seen = new ArrayList<>();
        while (true) {
            List<StreamMessage<String, String>> messages =
                    own.xreadgroup(Consumer.from("group", name), XReadArgs.Builder.count(7), StreamOffset.lastConsumed(key("x")));
            if (messages.isEmpty()) return seen;
            for (var message : messages) {
                assertEquals(1, own.xack(key("x"), "group", message.getId()));
                seen.add(message.getId());
            }
        }
    }

    @Test
    void streamsAreWaitedFor() throws Exception {
        redis.xgroupCreate(StreamOffset.from(key("x"), "$"), "group", XGroupCreateArgs.Builder.mkstream());
        Callable<List<String>> consume = () -> {
            RedisClusterCommands<String, String> own = connect();
            List<String> seen = new ArrayList<>();
            while (seen.size() < 20) {
                var messages = own.xreadgroup(Consumer.from("group", "waits"), XReadArgs.Builder.block(20_000), StreamOffset.lastConsumed(key("x")));
                messages.forEach(message -> seen.add(message.getBody().get("n")));
            }
            return seen;
        };
        Callable<List<String>> produce = () -> {
            for (String number : numbersBelow(20)) redis.xadd(key("x"), Map.of("n", number));
            return List.of();
        };
        assertEquals(numbersBelow(20), Servers.atOnce(consume, produce).get(0));
    }

    @Test
    void scriptsAreLoadedWhenTheServerLacksThem() {
        String script = "-- " + tag + "\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])";
        String[] keys = {key("n")};
        String digest = redis.digest(script);
        assertThrows(RedisNoScriptException.class, () -> redis.evalsha(digest, ScriptOutputType.INTEGER, keys, "5"));
        assertEquals(5L, redis.<Long>eval(script, ScriptOutputType.INTEGER, keys, "5"));
        assertEquals(10L, redis.<Long>evalsha(digest, ScriptOutputType.INTEGER, keys, "5"));
        assertEquals(digest, redis.scriptLoad(script));
    }

    @Test
    void functions() {
        assumeTrue(!Servers.IS_CLUSTER || Servers.HAS_NEARSIDE, "of a cluster's nodes Lettuce tells just one of a function");
        String name = getClass().getSimpleName();
        String code = "#!lua name=" + name + "\nredis.register_function('" + name
                + "', function(keys, args) return redis.call('SET', keys[1], args[1]) end)";
        assertEquals(name, redis.functionLoad(code, true));
        assertEquals("OK", redis.<String>fcall(name, ScriptOutputType.STATUS, new String[] {key("k")}, "v"));
        assertEquals("v", redis.get(key("k")));
    }

    @Test
    void blockingQueuesHandOutEverythingOnce() throws Exception {
        assertNull(redis.blpop(0.05, key("nosuch")));
        Callable<List<String>> consume = () -> {
            RedisClusterCommands<String, String> own = connect();
            List<String> seen = new ArrayList<>();
            for (String item; !(item = own.blpop(20, key("queue")).getValue()).equals("end");) seen.add(item);
            return seen;
        };
        Callable<List<String>> produce = () -> {
            for (String number : numbersBelow(300)) redis.rpush(key("queue"), number);
            redis.rpush(key("queue"), "end", "end", "end");
            return List.of();
        };
        List<String> seen = new ArrayList<>();
        Servers.atOnce(consume, consume, consume, produce).forEach(seen::addAll);
        assertEquals(new TreeSet<>(numbersBelow(300)), new TreeSet<>(seen));
        assertEquals(300, seen.size());
    }

    @Test
    void pubsubGivesMessages() throws Exception {
        BlockingQueue<String> heard = new LinkedBlockingQueue<>();
        try (StatefulRedisPubSubConnection<String, String> subscriber = connectPubSub()) {
            subscriber.addListener(new RedisPubSubAdapter<>() {
                @Override
                public void message(String channel, String message) {
                    heard.add(message);
                }

                @Override
                public void message(String pattern, String channel, String message) {
                    heard.add(pattern + " " + message);
                }
            });
            subscriber.sync().subscribe(key("channel"));
            for (String number : numbersBelow(100)) redis.publish(key("channel"), number);
            Set<String> seen = new TreeSet<>();
            for (int number = 0; number < 100; number++) seen.add(heard.poll(PATIENCE_S, TimeUnit.SECONDS));
            assertEquals(new TreeSet<>(numbersBelow(100)), seen);
            String prefix = getClass().getSimpleName();
            subscriber.sync().psubscribe(prefix + ":?");
            redis.publish(prefix + ":a", "v");
            assertEquals(prefix + ":? v", heard.poll(PATIENCE_S, TimeUnit.SECONDS));
        }
    }

    @Test
    void scanFindsEveryKeyAndField() {
        Map<String, String> names = new java.util.HashMap<>();
        for (String number : numbersBelow(500)) names.put("scan:" + getClass().getSimpleName() + ":" + number, number);
        redis.mset(names);
        Set<String> found = new HashSet<>();
        ScanArgs args = ScanArgs.Builder.limit(50).match("scan:" + getClass().getSimpleName() + ":*");
        KeyScanCursor<String> cursor = redis.scan(args);
        while (true) {
            found.addAll(cursor.getKeys());
            if (cursor.isFinished()) break;
            cursor = redis.scan(cursor, args);
        }
        assertEquals(names.keySet(), found);
        redis.hset(key("h"), names);
        Set<String> fields = new HashSet<>();
        ScanIterator.hscan(redis, key("h")).forEachRemaining(field -> fields.add(field.getKey()));
        assertEquals(names.keySet(), fields);
    }

    @Test
    void locksLetOneInAtATime() throws Exception {
        String release = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
        AtomicInteger tokens = new AtomicInteger();
        Servers.atOnce(Servers.times(6, () -> {
            RedisClusterCommands<String, String> own = connect();
            for (int turn = 0; turn < 10; turn++) {
                String token = "" + tokens.incrementAndGet();
                while (own.set(key("lock"), token, SetArgs.Builder.nx().ex(30)) == null) Thread.sleep(1);
                // Not atomic by itself.
                String value = own.get(key("n"));
                own.set(key("n"), "" + (value == null ? 1 : Integer.parseInt(value) + 1));
                assertEquals(1L, own.<Long>eval(release, ScriptOutputType.INTEGER, new String[] {key("lock")}, token));
            }
            return null;
        }));
        assertEquals("60", redis.get(key("n")));
    }

    private static List<String> numbersBelow(int end) {
        return IntStream.range(0, end).mapToObj(Integer::toString).toList();
    }
}
