package nearside;

import redis.clients.jedis.RedisClient;
import redis.clients.jedis.UnifiedJedis;

/** Jedis' client of one server, with its default settings. */
class JedisTest extends JedisFeatures {
    @Override
    UnifiedJedis make() {
        Servers.assumeOneServer();
        return RedisClient.create(Servers.HOST, Servers.PORT);
    }
}
