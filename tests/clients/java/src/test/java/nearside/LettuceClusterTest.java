package nearside;

import io.lettuce.core.cluster.RedisClusterClient;
import io.lettuce.core.cluster.api.StatefulRedisClusterConnection;
import io.lettuce.core.cluster.api.sync.RedisClusterCommands;
import io.lettuce.core.pubsub.StatefulRedisPubSubConnection;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;

/** Lettuce's client of a cluster, with its default settings. */
class LettuceClusterTest extends LettuceFeatures {
    private static RedisClusterClient client;

    @BeforeAll
    static void start() {
        Servers.assumeCluster();
        client = RedisClusterClient.create("redis://" + Servers.HOST + ":" + Servers.PORT);
    }

    @AfterAll
    static void shutdown() {
        if (client != null) client.shutdown();
    }

    @Override
    RedisClusterCommands<String, String> connect() {
        StatefulRedisClusterConnection<String, String> connection = client.connect();
        opened(connection);
        return connection.sync();
    }

    @Override
    StatefulRedisPubSubConnection<String, String> connectPubSub() {
        return client.connectPubSub();
    }
}
