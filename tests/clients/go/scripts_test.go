package clients

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestScriptsAreLoadedWhenTheServerLacksThem(t *testing.T) {
	forEachClient(t, func(t *testing.T, ctx context.Context, connect connect) {
		client, key := connect(), keyOf(t, "n")
		script := redis.NewScript("-- " + t.Name() + "\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])")
		if err := script.EvalSha(ctx, client, []string{key}, 5).Err(); !redis.HasErrorPrefix(err, "NOSCRIPT") {
			t.Fatalf("a script that nobody has loaded: %v", err)
		}
		gives(script.Run(ctx, client, []string{key}, 5).Int())(t, 5)
		gives(script.EvalSha(ctx, client, []string{key}, 5).Int())(t, 10)
	})
}

func TestFunctions(t *testing.T) {
	forEachClient(t, func(t *testing.T, ctx context.Context, connect connect) {
		client, key := connect(), keyOf(t, "k")
		name := strings.ReplaceAll(t.Name(), "/", "_")
		code := fmt.Sprintf("#!lua name=%s\nredis.register_function('%s', function(keys, args) return redis.call('SET', keys[1], args[1]) end)", name, name)
		onEveryMaster(t, ctx, client, func(ctx context.Context, node redis.Cmdable) error {
			return node.FunctionLoadReplace(ctx, code).Err()
		})
		gives(client.FCall(ctx, name, []string{key}, "v").Text())(t, "OK")
		gives(client.Get(ctx, key).Result())(t, "v")
		onEveryMaster(t, ctx, client, func(ctx context.Context, node redis.Cmdable) error {
			return node.FunctionDelete(ctx, name).Err()
		})
	})
}

func TestScanFindsEveryKeyOnce(t *testing.T) {
	forEachClient(t, func(t *testing.T, ctx context.Context, connect connect) {
		const keys = 500
		client, found := connect(), map[string]bool{}
		prefix := "go:" + t.Name() + ":"
		for number := range keys {
			must(t, client.Set(ctx, fmt.Sprint(prefix, number), 1, time.Minute).Err())
		}
		scan := func(ctx context.Context, node redis.Cmdable) error {
			iterator := node.Scan(ctx, 0, prefix+"*", 50).Iterator()
			for iterator.Next(ctx) {
				found[iterator.Val()] = true
			}
			return iterator.Err()
		}
		onEveryMaster(t, ctx, client, scan)
		equal(t, len(found), keys)
	})
}

func TestLocksLetOneInAtATime(t *testing.T) {
	forEachClient(t, func(t *testing.T, ctx context.Context, connect connect) {
		const clients, turns = 6, 10
		lock, key := keyOf(t, "lock"), keyOf(t, "n")
		release := redis.NewScript("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0")
		inside := func(client redis.UniversalClient, token string) error {
			for {
				had, err := client.SetNX(ctx, lock, token, 30*time.Second).Result()
				if err != nil {
					return err
				} else if had {
					break
				}
				time.Sleep(time.Millisecond)
			}
			// Not atomic by itself.
			value, err := client.Get(ctx, key).Int()
			if err != nil && err != redis.Nil {
				return err
			}
			if err := client.Set(ctx, key, value+1, 0).Err(); err != nil {
				return err
			}
			released, err := release.Run(ctx, client, []string{lock}, token).Int()
			if err == nil && released != 1 {
				err = fmt.Errorf("the lock was somebody else's")
			}
			return err
		}
		var functions []func() error
		for number := range clients {
			functions = append(functions, func() error {
				client := connect()
				for turn := range turns {
					if err := inside(client, fmt.Sprint(number, ":", turn)); err != nil {
						return err
					}
				}
				return nil
			})
		}
		atOnce(t, functions...)
		gives(connect().Get(ctx, key).Int())(t, clients*turns)
	})
}
