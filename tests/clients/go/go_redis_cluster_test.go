package clients

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// newClusterClient is a cluster client that is told of one node: Nearside.
func newClusterClient(t *testing.T) *redis.ClusterClient {
	t.Helper()
	if os.Getenv("NEARSIDE_TEST_UPSTREAM") != "cluster" {
		t.Skip("before a standalone server Nearside shows no cluster")
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{address}})
	t.Cleanup(func() { must(t, client.Close()) })
	return client
}

func TestClusterHasOneNode(t *testing.T) {
	ctx, client := newContext(t), newClusterClient(t)
	seen := []string{}
	must(t, client.ForEachShard(ctx, func(ctx context.Context, node *redis.Client) error {
		seen = append(seen, node.Options().Addr)
		return node.Ping(ctx).Err()
	}))
	equal(t, seen, []string{address})
	slots := ok(client.ClusterSlots(ctx).Result())(t)
	equal(t, len(slots), 1)
	equal(t, []int{slots[0].Start, slots[0].End, len(slots[0].Nodes)}, []int{0, 16383, 1})
	shards := ok(client.ClusterShards(ctx).Result())(t)
	equal(t, len(shards), 1)
	equal(t, shards[0].Nodes[0].ID, slots[0].Nodes[0].ID)
	equal(t, ok(client.ClusterMyID(ctx).Result())(t), slots[0].Nodes[0].ID)
	if info := ok(client.ClusterInfo(ctx).Result())(t); !strings.HasPrefix(info, "cluster_state:ok\r\n") {
		t.Fatal(info)
	}
	equal(t, len(ok(client.ClusterLinks(ctx).Result())(t)), 0)
}

func TestClusterCommands(t *testing.T) {
	ctx, client := newContext(t), newClusterClient(t)
	gives(client.Set(ctx, keyOf(t, "k"), "v", 0).Result())(t, "OK")
	gives(client.Get(ctx, keyOf(t, "k")).Result())(t, "v")
	gives(client.Get(ctx, keyOf(t, "k")).Result())(t, "v")
	if _, err := client.Get(ctx, keyOf(t, "nosuch")).Result(); !errors.Is(err, redis.Nil) {
		t.Fatalf("a missing key gives %v", err)
	}
	gives(client.HSet(ctx, keyOf(t, "h"), "f", "v", "g", "w").Result())(t, 2)
	gives(client.HGetAll(ctx, keyOf(t, "h")).Result())(t, map[string]string{"f": "v", "g": "w"})
	gives(client.MSet(ctx, keyOf(t, "a"), 1, keyOf(t, "b"), 2).Result())(t, "OK")
	gives(client.MGet(ctx, keyOf(t, "a"), keyOf(t, "nosuch"), keyOf(t, "b")).Result())(t, []any{"1", nil, "2"})
	gives(client.Del(ctx, keyOf(t, "a"), keyOf(t, "b")).Result())(t, 2)
	slot := int(ok(client.ClusterKeySlot(ctx, keyOf(t, "k")).Result())(t))
	gives(client.ClusterCountKeysInSlot(ctx, slot).Result())(t, 2)
	equal(t, len(ok(client.ClusterGetKeysInSlot(ctx, slot, 10).Result())(t)), 2)
	gives(client.ReadOnly(ctx).Result())(t, "OK")
	gives(client.ReadWrite(ctx).Result())(t, "OK")
}

func TestClusterPipelines(t *testing.T) {
	ctx, client := newContext(t), newClusterClient(t)
	const pairs = 10_000
	commands := ok(client.Pipelined(ctx, func(pipeline redis.Pipeliner) error {
		for number := range pairs {
			spread := fmt.Sprintf("go:%s:%d", t.Name(), number)
			pipeline.Set(ctx, spread, number, time.Minute)
			pipeline.Get(ctx, spread)
		}
		return nil
	}))(t)
	for number := range pairs {
		gives(commands[2*number+1].(*redis.StringCmd).Int())(t, number)
	}
}

func TestClusterReadsFromReplicasAreReadsFromTheOneNode(t *testing.T) {
	ctx := newContext(t)
	newClusterClient(t)
	for _, options := range []*redis.ClusterOptions{{ReadOnly: true}, {RouteByLatency: true}, {RouteRandomly: true}} {
		options.Addrs = []string{address}
		client := redis.NewClusterClient(options)
		gives(client.Set(ctx, keyOf(t, "k"), "v", 0).Result())(t, "OK")
		gives(client.Get(ctx, keyOf(t, "k")).Result())(t, "v")
		must(t, client.Close())
	}
}

func TestAKilledClusterClientConnectsAgain(t *testing.T) {
	ctx, client, killer := newContext(t), newClusterClient(t), newClient(t)
	gives(client.Set(ctx, keyOf(t, "k"), "v", 0).Result())(t, "OK")
	if killed := ok(killer.ClientKillByFilter(ctx, "TYPE", "normal", "SKIPME", "yes").Result())(t); killed == 0 {
		t.Fatal("nobody was connected")
	}
	gives(client.Get(ctx, keyOf(t, "k")).Result())(t, "v")
}

func TestClusterClientOutlivesUpstreamConnections(t *testing.T) {
	ctx, client := newContext(t), newClusterClient(t)
	gives(client.Set(ctx, keyOf(t, "k"), "before", 0).Result())(t, "OK")
	killUpstreamConnections(t, ctx)
	for ctx.Err() == nil {
		err := client.Set(ctx, keyOf(t, "k"), "after", 0).Err()
		if err == nil {
			break
		}
		if !strings.HasPrefix(err.Error(), "UPSTREAM ") {
			t.Fatalf("a lost upstream is told so: %v", err)
		}
	}
	gives(client.Get(ctx, keyOf(t, "k")).Result())(t, "after")
}
