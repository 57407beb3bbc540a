package nearside;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeFalse;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInfo;
import org.junit.jupiter.api.Timeout;
import redis.clients.jedis.AbstractPipeline;
import redis.clients.jedis.AbstractTransaction;
import redis.clients.jedis.JedisCluster;
import redis.clients.jedis.JedisPubSub;
import redis.clients.jedis.Response;
import redis.clients.jedis.ScanIteration;
import redis.clients.jedis.StreamEntryID;
import redis.clients.jedis.UnifiedJedis;
import redis.clients.jedis.exceptions.JedisDataException;
import redis.clients.jedis.exceptions.JedisNoScriptException;
import redis.clients.jedis.params.SetParams;
import redis.clients.jedis.params.XAutoClaimParams;
import redis.clients.jedis.params.XReadGroupParams;
import redis.clients.jedis.resps.StreamEntry;

/** What each kind of Jedis' clients is to do. */
@Timeout(60)
abstract class JedisFeatures {
    private static final int PATIENCE_S = 30;
    private static final SetParams LOCK = SetParams.setParams().nx().ex(30);

    private UnifiedJedis client;
    private String tag;

    abstract UnifiedJedis make();

    @BeforeEach
    void connect(TestInfo test) {
        client = make();
        tag = "{" + getClass().getSimpleName() + "." + test.getTestMethod().orElseThrow().getName() + "}";
    }

    @AfterEach
    void close() {
        if (client != null) client.close();
    }

    private String key(String name) {
        return tag + name;
    }

    @Test
    void strings() {
        assertEquals("OK", client.set(key("k"), "v"));
        assertEquals("v", client.get(key("k")));
        assertEquals("v", client.get(key("k")));
        assertNull(client.get(key("nosuch")));
        assertNull(client.set(key("k"), "w", SetParams.setParams().nx()));
        assertEquals(5, client.incrBy(key("n"), 5));
        assertEquals("OK", client.mset(key("a"), "1", key("b"), "2"));
        assertEquals(Arrays.asList("1", null, "2"), client.mget(key("a"), key("nosuch"), key("b")));
        assertEquals(2, client.del(key("a"), key("b")));
        JedisDataException error = assertThrows(JedisDataException.class, () -> client.lpush(key("k"), "x"));
        assertEquals("WRONGTYPE Operation against a key holding the wrong kind of value", error.getMessage());
    }

    @Test
    void hashesAndLists() {
        assertEquals(2, client.hset(key("h"), Map.of("f", "v", "g", "w")));
        assertEquals(Map.of("f", "v", "g", "w"), client.hgetAll(key("h")));
        assertEquals(3, client.rpush(key("l"), "message", "a", "b"));
        assertEquals(List.of("message", "a", "b"), client.lrange(key("l"), 0, -1));
    }

    @Test
    void binaryAndBigValues() {
        byte[] every = new byte[256];
        for (int value = 0; value < every.length; value++) every[value] = (byte) value;
        byte[] big = new byte[8 << 20];
        new Random(0).nextBytes(big);
        for (byte[] bytes : List.of(every, big)) {
            assertEquals("OK", client.set(key("k").getBytes(), bytes));
            assertArrayEquals(bytes, client.get(key("k").getBytes()));
            assertArrayEquals(bytes, client.get(key("k").getBytes()));
        }
    }

    @Test
    void pipelines() {
        try (AbstractPipeline pipeline = client.pipelined()) {
            List<Response<String>> reads = new ArrayList<>();
            for (int number = 0; number < 5000; number++) {
                pipeline.set(key("") + "{" + number + "}" + number, "" + number);
                reads.add(pipeline.get(key("") + "{" + number + "}" + number));
            }
            pipeline.sync();
            for (int number = 0; number < 5000; number++) assertEquals("" + number, reads.get(number).get());
        }
    }

    @Test
    void streamsShareAGroup() throws Exception {
        Set<String> added = new TreeSet<>();
        for (int number = 0; number < 200; number++) added.add(client.xadd(key("x"), StreamEntryID.NEW_ENTRY, Map.of("n", "" + number)).toString());
        client.xgroupCreate(key("x"), "group", new StreamEntryID("0-0"), false);
        AtomicInteger names = new AtomicInteger();
        List<List<String>> seen = Servers.atOnce(Servers.times(3, () -> consume("consumer" + names.incrementAndGet())));
        assertEquals(new ArrayList<>(added), seen.stream().flatMap(List::stream).sorted().toList());
        assertEquals(0, client.xpending(key("x"), "group").getTotal());
    }

    private List<String> consume(String name) {
        List<String> seen = new ArrayList<>();
        while (true) {
            List<StreamEntry> entries = readGroup(name, XReadGroupParams.xReadGroupParams().count(7));
            if (entries.isEmpty()) return seen;
            for (StreamEntry entry : entries) {
                assertEquals(1, client.xack(key("x"), "group", entry.getID()));
                seen.add(entry.getID().toString());
            }
        }
    }

    private List<StreamEntry> readGroup(String name, XReadGroupParams params) {
        var streams = client.xreadGroup("group", name, params, Map.of(key("x"), StreamEntryID.XREADGROUP_UNDELIVERED_ENTRY));
        return streams == null || streams.isEmpty() ? List.of() : streams.get(0).getValue();
    }

    @Test
    void streamsAreWaitedForAndClaimed() throws Exception {
        client.xgroupCreate(key("x"), "group", StreamEntryID.XGROUP_LAST_ENTRY, true);
        Callable<List<StreamEntry>> consume = () -> {
            List<StreamEntry> seen = new ArrayList<>();
            // Less than the client waits for any reply.
            while (seen.size() < 20) seen.addAll(readGroup("waits", XReadGroupParams.xReadGroupParams().block(500)));
            return seen;
        };
        Callable<List<StreamEntry>> produce = () -> {
            for (int number = 0; number < 20; number++) client.xadd(key("x"), StreamEntryID.NEW_ENTRY, Map.of("n", "" + number));
            return List.of();
        };
        List<StreamEntry> seen = Servers.atOnce(consume, produce).get(0);
        assertEquals(numbersBelow(20), seen.stream().map(entry -> entry.getFields().get("n")).toList());
        var claimed = client.xautoclaim(key("x"), "group", "heir", 0, new StreamEntryID("0-0"), XAutoClaimParams.xAutoClaimParams());
        assertEquals(20, claimed.getValue().size());
    }

    @Test
    void transactions() {
        assumeTransactions();
        try (AbstractTransaction transaction = client.multi()) {
            Response<String> read;
            transaction.set(key("k"), "v");
            read = transaction.get(key("k"));
            transaction.lpush(key("k"), "x");
            transaction.incrBy(key("n"), 5);
            List<Object> replies = transaction.exec();
            assertEquals("v", read.get());
            assertInstanceOf(JedisDataException.class, replies.get(2));
            assertEquals(5L, replies.get(3));
        }
        try (AbstractTransaction transaction = client.multi()) {
            transaction.set(key("k"), "discarded");
            transaction.discard();
        }
        assertEquals("v", client.get(key("k")));
    }

    @Test
    void watchLosesNoIncrement() throws Exception {
        assumeTransactions();
        AtomicInteger lost = new AtomicInteger();
        Servers.atOnce(Servers.times(6, () -> {
            for (int turn = 0; turn < 25;) {
                try (AbstractTransaction transaction = client.transaction(false)) {
                    transaction.watch(key("n"));
                    String value = client.get(key("n"));
                    transaction.multi();
                    transaction.set(key("n"), "" + (value == null ? 1 : Integer.parseInt(value) + 1));
                    if (transaction.exec() != null) turn++;
                    else lost.incrementAndGet();
                }
            }
            return null;
        }));
        assertEquals("150", client.get(key("n")));
        assertTrue(lost.get() > 0, "else nobody was in anybody's way, and this tested nothing");
    }

    @Test
    void scriptsAreLoadedWhenTheServerLacksThem() {
        String script = "-- " + tag + "\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])";
        List<String> keys = List.of(key("n"));
        assertEquals(5L, client.eval(script, keys, List.of("5")));
        assertThrows(JedisNoScriptException.class, () -> client.evalsha("0".repeat(40), keys, List.of("5")));
        String digest = client.scriptLoad(script, key("n"));
        assertEquals(10L, client.evalsha(digest, keys, List.of("5")));
        assertEquals(List.of(true), client.scriptExists(key("n"), new String[] {digest}));
    }

    @Test
    void blockingQueuesHandOutEverythingOnce() throws Exception {
        assertNull(client.blpop(0.05, key("nosuch")));
        Callable<List<String>> consume = () -> {
            List<String> seen = new ArrayList<>();
            // The client waits two seconds for any reply but those of commands that wait.
            for (String item; !(item = client.blpop(20.0, key("queue")).getValue()).equals("end");) seen.add(item);
            return seen;
        };
        Callable<List<String>> produce = () -> {
            for (String number : numbersBelow(300)) client.rpush(key("queue"), number);
            client.rpush(key("queue"), "end", "end", "end");
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
        JedisPubSub subscription = new JedisPubSub() {
            @Override
            public void onSubscribe(String channel, int count) {
                heard.add("subscribed");
            }

            @Override
            public void onMessage(String channel, String message) {
                heard.add(message);
            }
        };
        Callable<List<String>> listen = () -> {
            client.subscribe(subscription, key("channel"));
            return List.of();
        };
        Callable<List<String>> publish = () -> {
            assertEquals("subscribed", heard.poll(PATIENCE_S, TimeUnit.SECONDS));
            for (String number : numbersBelow(100)) client.publish(key("channel"), number);
            List<String> seen = new ArrayList<>();
            while (seen.size() < 100) seen.add(heard.poll(PATIENCE_S, TimeUnit.SECONDS));
            subscription.unsubscribe();
            return seen;
        };
        List<String> seen = Servers.atOnce(listen, publish).get(1);
        // The cluster's client publishes by any node, which may overtake one another.
        assertEquals(new TreeSet<>(numbersBelow(100)), new TreeSet<>(seen));
    }

    @Test
    void scanFindsEveryKeyAndField() {
        Set<String> names = new HashSet<>();
        for (String number : numbersBelow(500)) names.add("scan:" + getClass().getSimpleName() + ":" + number);
        for (String name : names) client.set(name, "1");
        Set<String> found = new HashSet<>();
        ScanIteration scan = client.scanIteration(50, "scan:" + getClass().getSimpleName() + ":*");
        while (!scan.isIterationCompleted()) found.addAll(scan.nextBatchList());
        assertEquals(names, found);
        for (String name : names) client.hset(key("h"), name, name);
        Set<String> fields = new HashSet<>();
        String cursor = "0";
        do {
            var page = client.hscan(key("h"), cursor);
            page.getResult().forEach(entry -> fields.add(entry.getKey()));
            cursor = page.getCursor();
        } while (!cursor.equals("0"));
        assertEquals(names, fields);
    }

    @Test
    void locksLetOneInAtATime() throws Exception {
        String release = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
        AtomicInteger tokens = new AtomicInteger();
        Servers.atOnce(Servers.times(6, () -> {
            for (int turn = 0; turn < 10; turn++) {
                String token = "" + tokens.incrementAndGet();
                while (client.set(key("lock"), token, LOCK) == null) Thread.sleep(1);
                // Not atomic by itself.
                String value = client.get(key("n"));
                client.set(key("n"), "" + (value == null ? 1 : Integer.parseInt(value) + 1));
                assertEquals(1L, client.eval(release, List.of(key("lock")), Collections.singletonList(token)));
            }
            return null;
        }));
        assertEquals("60", client.get(key("n")));
    }

    private void assumeTransactions() {
        assumeFalse(client instanceof JedisCluster, "JedisCluster has no transactions");
    }

    private static List<String> numbersBelow(int end) {
        return IntStream.range(0, end).mapToObj(Integer::toString).toList();
    }
}
