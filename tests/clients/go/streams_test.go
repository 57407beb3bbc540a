package clients

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestStreamsShareAGroup(t *testing.T) {
	forEachClient(t, func(t *testing.T, ctx context.Context, connect connect) {
		client, stream := connect(), keyOf(t, "x")
		var added, seen []string
		for number := range 200 {
			added = append(added, ok(client.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: []any{"n", number}}).Result())(t))
		}
		must(t, client.XGroupCreate(ctx, stream, "group", "0").Err())
		var lock sync.Mutex
		consume := func(name string) func() error {
			return func() error {
				consumer := connect()
				for {
					args := redis.XReadGroupArgs{Group: "group", Consumer: name, Streams: []string{stream, ">"}, Count: 7, Block: -1}
					streams, err := consumer.XReadGroup(ctx, &args).Result()
					if errors.Is(err, redis.Nil) {
						return nil
					} else if err != nil {
						return err
					}
					for _, message := range streams[0].Messages {
						if err := consumer.XAck(ctx, stream, "group", message.ID).Err(); err != nil {
							return err
						}
						lock.Lock()
						seen = append(seen, message.ID)
						lock.Unlock()
					}
				}
			}
		}
		atOnce(t, consume("alice"), consume("bob"), consume("carol"))
		slices.Sort(added)
		slices.Sort(seen)
		equal(t, seen, added)
		equal(t, ok(client.XPending(ctx, stream, "group").Result())(t).Count, 0)
	})
}

func TestStreamsAreWaitedFor(t *testing.T) {
	forEachClient(t, func(t *testing.T, ctx context.Context, connect connect) {
		client, stream := connect(), keyOf(t, "x")
		must(t, client.XGroupCreateMkStream(ctx, stream, "group", "$").Err())
		var seen []string
		consume := func() error {
			consumer := connect()
			for len(seen) < 20 {
				args := redis.XReadGroupArgs{Group: "group", Consumer: "waits", Streams: []string{stream, ">"}, Block: 20 * time.Second}
				streams, err := consumer.XReadGroup(ctx, &args).Result()
				if err != nil {
					return err
				}
				for _, message := range streams[0].Messages {
					seen = append(seen, message.Values["n"].(string))
				}
			}
			return nil
		}
		produce := func() error {
			for number := range 20 {
				if err := client.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: []any{"n", number}}).Err(); err != nil {
					return err
				}
			}
			return nil
		}
		atOnce(t, consume, produce)
		for number, value := range seen {
			equal(t, value, strconv.Itoa(number))
		}
	})
}

func TestStreamsLeftBehindAreClaimed(t *testing.T) {
	forEachClient(t, func(t *testing.T, ctx context.Context, connect connect) {
		client, stream := connect(), keyOf(t, "x")
		id := ok(client.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: []any{"n", 1}}).Result())(t)
		must(t, client.XGroupCreate(ctx, stream, "group", "0").Err())
		ok(client.XReadGroup(ctx, &redis.XReadGroupArgs{Group: "group", Consumer: "gone", Streams: []string{stream, ">"}}).Result())(t)
		claimed, _, err := client.XAutoClaim(ctx, &redis.XAutoClaimArgs{Stream: stream, Group: "group", Consumer: "heir", Start: "0"}).Result()
		must(t, err)
		equal(t, claimed[0].ID, id)
		gives(client.XAck(ctx, stream, "group", id).Result())(t, 1)
	})
}
