package clients

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestBlockingTimesOut(t *testing.T) {
	forEachClient(t, func(t *testing.T, ctx context.Context, connect connect) {
		client := connect()
		if _, err := client.BLPop(ctx, time.Second, keyOf(t, "nosuch")).Result(); !errors.Is(err, redis.Nil) {
			t.Fatalf("an empty list gives %v", err)
		}
		gives(client.RPush(ctx, keyOf(t, "l"), "a").Result())(t, 1)
		gives(client.BLMove(ctx, keyOf(t, "l"), keyOf(t, "m"), "LEFT", "RIGHT", time.Second).Result())(t, "a")
	})
}

func TestBlockingQueuesHandOutEverythingOnce(t *testing.T) {
	forEachClient(t, func(t *testing.T, ctx context.Context, connect connect) {
		const produced, consumers = 300, 4
		queue := keyOf(t, "queue")
		var seen []int
		var lock sync.Mutex
		consume := func() error {
			client := connect()
			for {
				item, err := client.BLPop(ctx, 20*time.Second, queue).Result()
				if err != nil {
					return err
				}
				if item[1] == "end" {
					return nil
				}
				number, err := strconv.Atoi(item[1])
				if err != nil {
					return err
				}
				lock.Lock()
				seen = append(seen, number)
				lock.Unlock()
			}
		}
		produce := func() error {
			client := connect()
			for number := range produced {
				if err := client.RPush(ctx, queue, number).Err(); err != nil {
					return err
				}
			}
			return client.RPush(ctx, queue, "end", "end", "end", "end").Err()
		}
		atOnce(t, append(times(consumers, consume), produce)...)
		slices.Sort(seen)
		equal(t, len(seen), produced)
		for number, value := range seen {
			equal(t, value, number)
		}
	})
}

func TestPubSubGivesMessagesInOrder(t *testing.T) {
	forEachClient(t, func(t *testing.T, ctx context.Context, connect connect) {
		client, channel := connect(), keyOf(t, "channel")
		subscription := connect().Subscribe(ctx, channel)
		defer subscription.Close()
		ok(subscription.Receive(ctx))(t)
		// No more than the client keeps for a slow reader.
		for number := range 100 {
			must(t, client.Publish(ctx, channel, number).Err())
		}
		var heard []int
		for range 100 {
			heard = append(heard, ok(strconv.Atoi(ok(subscription.ReceiveMessage(ctx))(t).Payload))(t))
		}
		if _, isCluster := client.(*redis.ClusterClient); isCluster {
			// It publishes by any node, which may overtake one another.
			slices.Sort(heard)
		}
		for number, value := range heard {
			equal(t, value, number)
		}
	})
}

func TestPubSubHasPatternsAndShardChannels(t *testing.T) {
	forEachClient(t, func(t *testing.T, ctx context.Context, connect connect) {
		client, channel := connect(), fmt.Sprintf("go-%s", t.Name())
		for _, subscription := range []*redis.PubSub{connect().PSubscribe(ctx, channel+":?"), connect().SSubscribe(ctx, channel)} {
			defer subscription.Close()
			ok(subscription.Receive(ctx))(t)
			must(t, client.Publish(ctx, channel+":a", "v").Err())
			must(t, client.SPublish(ctx, channel, "v").Err())
			equal(t, ok(subscription.ReceiveMessage(ctx))(t).Payload, "v")
		}
	})
}
