package nearside;

import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.JedisCluster;
import redis.clients.jedis.UnifiedJedis;

/** JedisCluster, with its default settings. */
class JedisClusterTest extends JedisFeatures {
    @Override
    UnifiedJedis make() {
        Servers.assumeCluster();
        return new JedisCluster(new HostAndPort(Servers.HOST, Servers.PORT));
    }
}
