package clients

import (
	"net"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Failover clients are told one Sentinel: Nearside, that names itself as the primary.
func TestFailoverClientFindsNearside(t *testing.T) {
	if admin == "" {
		t.Skip("no Sentinel without Nearside")
	}
	ctx := newContext(t)
	client := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "mymaster", SentinelAddrs: []string{address}})
	t.Cleanup(func() { must(t, client.Close()) })
	gives(client.Set(ctx, keyOf(t, "k"), "v", 0).Result())(t, "OK")
	gives(client.Get(ctx, keyOf(t, "k")).Result())(t, "v")
	sentinel := redis.NewSentinelClient(&redis.Options{Addr: address})
	t.Cleanup(func() { must(t, sentinel.Close()) })
	host, port, err := net.SplitHostPort(address)
	must(t, err)
	gives(sentinel.GetMasterAddrByName(ctx, "mymaster").Result())(t, []string{host, port})
	equal(t, ok(sentinel.Master(ctx, "mymaster").Result())(t)["flags"], "master")
	equal(t, len(ok(sentinel.Sentinels(ctx, "mymaster").Result())(t)), 0)
	equal(t, len(ok(sentinel.Replicas(ctx, "mymaster").Result())(t)), 0)
	killer := newClient(t)
	if killed := ok(killer.ClientKillByFilter(ctx, "TYPE", "normal", "SKIPME", "yes").Result())(t); killed == 0 {
		t.Fatal("nobody was connected")
	}
	gives(client.Get(ctx, keyOf(t, "k")).Result())(t, "v")
}
