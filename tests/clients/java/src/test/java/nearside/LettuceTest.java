package nearside;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.lettuce.core.RedisClient;
import io.lettuce.core.RedisCommandExecutionException;
import io.lettuce.core.TransactionResult;
import io.lettuce.core.api.StatefulRedisConnection;
import io.lettuce.core.api.sync.RedisCommands;
import io.lettuce.core.cluster.api.sync.RedisClusterCommands;
import io.lettuce.core.pubsub.StatefulRedisPubSubConnection;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** Lettuce's client of one server, with its default settings. */
class LettuceTest extends LettuceFeatures {
    private static RedisClient client;

    @BeforeAll
    static void start() {
        Servers.assumeOneServer();
        client = RedisClient.create("redis://" + Servers.HOST + ":" + Servers.PORT);
    }

    @AfterAll
    static void shutdown() {
        if (client != null) client.shutdown();
    }

    @Override
    RedisClusterCommands<String, String> connect() {
        return connectAlone();
    }

    private RedisCommands<String, String> connectAlone() {
        StatefulRedisConnection<String, String> connection = client.connect();
        opened(connection);
        return connection.sync();
    }

    @Override
    StatefulRedisPubSubConnection<String, String> connectPubSub() {
        return client.connectPubSub();
    }

    @Test
    void transactions() {
        RedisCommands<String, String> redis = connectAlone();
        assertEquals("OK", redis.multi());
        redis.set(key("k"), "v");
        redis.get(key("k"));
        redis.lpush(key("k"), "x");
        redis.incrby(key("n"), 5);
        TransactionResult replies = redis.exec();
        assertEquals("v", replies.get(1));
        assertInstanceOf(RedisCommandExecutionException.class, replies.get(2));
        assertEquals(5L, (Long) replies.get(3));
        redis.multi();
        redis.set(key("k"), "discarded");
        assertEquals("OK", redis.discard());
        assertEquals("v", redis.get(key("k")));
    }

    @Test
    void watchLosesNoIncrement() throws Exception {
        AtomicInteger lost = new AtomicInteger();
        Servers.atOnce(Servers.times(6, () -> {
            RedisCommands<String, String> redis = connectAlone();
            for (int turn = 0; turn < 25;) {
                redis.watch(key("n"));
                String value = redis.get(key("n"));
                redis.multi();
                redis.set(key("n"), "" + (value == null ? 1 : Integer.parseInt(value) + 1));
                if (redis.exec().wasDiscarded()) lost.incrementAndGet();
                else turn++;
            }
            return null;
        }));
        assertEquals("150", connectAlone().get(key("n")));
        assertTrue(lost.get() > 0, "else nobody was in anybody's way, and this tested nothing");
    }
}
