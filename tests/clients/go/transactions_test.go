package clients

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestTransactionsGiveEveryReply(t *testing.T) {
	forEachClient(t, func(t *testing.T, ctx context.Context, connect connect) {
		client, key, number := connect(), keyOf(t, "k"), keyOf(t, "n")
		commands := ok(client.TxPipelined(ctx, func(pipeline redis.Pipeliner) error {
			pipeline.Set(ctx, key, "v", 0)
			pipeline.Get(ctx, key)
			pipeline.IncrBy(ctx, number, 5)
			return nil
		}))(t)
		gives(commands[1].(*redis.StringCmd).Result())(t, "v")
		gives(commands[2].(*redis.IntCmd).Result())(t, 5)
	})
}

func TestTransactionsTellOfErrorsInside(t *testing.T) {
	forEachClient(t, func(t *testing.T, ctx context.Context, connect connect) {
		client, key, other := connect(), keyOf(t, "k"), keyOf(t, "o")
		commands, err := client.TxPipelined(ctx, func(pipeline redis.Pipeliner) error {
			pipeline.Set(ctx, key, "v", 0)
			pipeline.LPush(ctx, key, 1)
			pipeline.Set(ctx, other, "w", 0)
			return nil
		})
		if err == nil || !strings.HasPrefix(commands[1].Err().Error(), "WRONGTYPE") {
			t.Fatalf("%v, %v", err, commands[1])
		}
		gives(client.Get(ctx, other).Result())(t, "w")
	})
}

func TestTransactionsAreUndoneByACommandThatIsNone(t *testing.T) {
	forEachClient(t, func(t *testing.T, ctx context.Context, connect connect) {
		client, key := connect(), keyOf(t, "k")
		_, err := client.TxPipelined(ctx, func(pipeline redis.Pipeliner) error {
			pipeline.Set(ctx, key, "v", 0)
			pipeline.Do(ctx, "SET", key)
			return nil
		})
		if err == nil {
			t.Fatal("it was executed")
		}
		gives(client.Exists(ctx, key).Result())(t, 0)
	})
}

func TestWatchLosesNoIncrement(t *testing.T) {
	forEachClient(t, func(t *testing.T, ctx context.Context, connect connect) {
		const clients, turns = 8, 25
		key, lost := keyOf(t, "n"), atomic.Int64{}
		increment := func(client redis.UniversalClient) error {
			return client.Watch(ctx, func(transaction *redis.Tx) error {
				value, err := transaction.Get(ctx, key).Int()
				if err != nil && !errors.Is(err, redis.Nil) {
					return err
				}
				_, err = transaction.TxPipelined(ctx, func(pipeline redis.Pipeliner) error {
					return pipeline.Set(ctx, key, value+1, 0).Err()
				})
				return err
			}, key)
		}
		atOnce(t, times(clients, func() error {
			client := connect()
			for turn := 0; turn < turns; {
				err := increment(client)
				if err == nil {
					turn++
				} else if errors.Is(err, redis.TxFailedErr) {
					lost.Add(1)
				} else {
					return err
				}
			}
			return nil
		})...)
		gives(connect().Get(ctx, key).Int())(t, clients*turns)
		if lost.Load() == 0 {
			t.Fatal("nobody was in anybody's way: this tested nothing")
		}
	})
}
