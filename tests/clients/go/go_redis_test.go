// Package clients has the tests of go-redis with its default settings, through Nearside.
package clients

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func everyByte() string {
	bytes := make([]byte, 256)
	for value := range bytes {
		bytes[value] = byte(value)
	}
	return string(bytes)
}

func TestStrings(t *testing.T) {
	ctx, client := newContext(t), newClient(t)
	key, number := keyOf(t, "k"), keyOf(t, "n")
	gives(client.Set(ctx, key, "v", 0).Result())(t, "OK")
	gives(client.Get(ctx, key).Result())(t, "v")
	gives(client.Get(ctx, key).Result())(t, "v")
	if _, err := client.Get(ctx, keyOf(t, "nosuch")).Result(); !errors.Is(err, redis.Nil) {
		t.Fatalf("a missing key gives %v", err)
	}
	gives(client.SetNX(ctx, key, "w", 0).Result())(t, false)
	gives(client.GetSet(ctx, key, "w").Result())(t, "v")
	gives(client.IncrBy(ctx, number, 5).Result())(t, 5)
	gives(client.MSet(ctx, keyOf(t, "a"), 1, keyOf(t, "b"), 2).Result())(t, "OK")
	gives(client.MGet(ctx, keyOf(t, "a"), keyOf(t, "nosuch"), keyOf(t, "b")).Result())(t, []any{"1", nil, "2"})
	gives(client.Del(ctx, keyOf(t, "a"), keyOf(t, "b")).Result())(t, 2)
	gives(client.Exists(ctx, keyOf(t, "a")).Result())(t, 0)
}

func TestHashes(t *testing.T) {
	ctx, client := newContext(t), newClient(t)
	key := keyOf(t, "h")
	gives(client.HSet(ctx, key, "f", "v", "g", "w").Result())(t, 2)
	gives(client.HGet(ctx, key, "f").Result())(t, "v")
	gives(client.HGetAll(ctx, key).Result())(t, map[string]string{"f": "v", "g": "w"})
	gives(client.HDel(ctx, key, "f").Result())(t, 1)
	gives(client.HGetAll(ctx, key).Result())(t, map[string]string{"g": "w"})
}

func TestLists(t *testing.T) {
	ctx, client := newContext(t), newClient(t)
	key := keyOf(t, "l")
	// "message" is also what a published message begins with.
	gives(client.RPush(ctx, key, "message", "a", "b").Result())(t, 3)
	gives(client.LRange(ctx, key, 0, -1).Result())(t, []string{"message", "a", "b"})
	gives(client.LPop(ctx, key).Result())(t, "message")
	gives(client.LLen(ctx, key).Result())(t, 2)
}

func TestPipelines(t *testing.T) {
	ctx, client := newContext(t), newClient(t)
	key := keyOf(t, "k")
	var before, after *redis.StringCmd
	_, err := client.Pipelined(ctx, func(pipeline redis.Pipeliner) error {
		pipeline.Set(ctx, key, "old", 0)
		before = pipeline.Get(ctx, key)
		pipeline.Del(ctx, key)
		after = pipeline.Get(ctx, key)
		return nil
	})
	if !errors.Is(err, redis.Nil) {
		t.Fatalf("the pipeline's first error is %v, not that of the missing key", err)
	}
	gives(before.Result())(t, "old")
	if !errors.Is(after.Err(), redis.Nil) {
		t.Fatalf("read of a deleted key: %v", after)
	}

	const pairs = 10_000
	commands := ok(client.Pipelined(ctx, func(pipeline redis.Pipeliner) error {
		for number := range pairs {
			// Keys of every slot.
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

func TestBinaryKeysAndValues(t *testing.T) {
	ctx, client := newContext(t), newClient(t)
	all := everyByte()
	gives(client.Set(ctx, keyOf(t, all), all, 0).Result())(t, "OK")
	gives(client.Get(ctx, keyOf(t, all)).Result())(t, all)
	gives(client.Get(ctx, keyOf(t, all)).Result())(t, all)
	gives(client.HSet(ctx, keyOf(t, "h"), all, all).Result())(t, 1)
	gives(client.HGetAll(ctx, keyOf(t, "h")).Result())(t, map[string]string{all: all})
	for value := range 256 {
		key, value := keyOf(t, string([]byte{byte(value)})), string([]byte{byte(value)})
		gives(client.Set(ctx, key, value, 0).Result())(t, "OK")
		gives(client.Get(ctx, key).Result())(t, value)
	}
}

func TestBigValues(t *testing.T) {
	ctx, client := newContext(t), newClient(t)
	big := make([]byte, 8<<20)
	generator := rand.NewChaCha8([32]byte{})
	ok(generator.Read(big))(t)
	gives(client.Set(ctx, keyOf(t, "k"), big, 0).Result())(t, "OK")
	for range 3 {
		if read := ok(client.Get(ctx, keyOf(t, "k")).Bytes())(t); string(read) != string(big) {
			t.Fatalf("%d bytes came back, other than the %d that were written", len(read), len(big))
		}
	}
}

func TestTheSecondReadIsAHit(t *testing.T) {
	ctx, client := newContext(t), newClient(t)
	key := keyOf(t, "k")
	gives(client.Set(ctx, key, "v", 0).Result())(t, "OK")
	before := cacheHits(t)
	gives(client.Get(ctx, key).Result())(t, "v")
	equal(t, cacheHits(t), before)
	gives(client.Get(ctx, key).Result())(t, "v")
	equal(t, cacheHits(t), before+1)
}

func TestAKilledClientConnectsAgain(t *testing.T) {
	ctx, client, killer := newContext(t), newClient(t), newClient(t)
	key := keyOf(t, "k")
	gives(client.Set(ctx, key, "v", 0).Result())(t, "OK")
	id := ok(client.ClientID(ctx).Result())(t)
	gives(killer.ClientKillByFilter(ctx, "ID", fmt.Sprint(id)).Result())(t, 1)
	gives(client.Get(ctx, key).Result())(t, "v")
	if again := ok(client.ClientID(ctx).Result())(t); again == id {
		t.Fatalf("the connection lives: its id is still %d", id)
	}
}

func TestKilledUpstreamConnectionsAreMadeAnew(t *testing.T) {
	ctx, client := newContext(t), newClient(t)
	key := keyOf(t, "k")
	gives(client.Set(ctx, key, "before", 0).Result())(t, "OK")
	gives(client.Get(ctx, key).Result())(t, "before")
	id := ok(client.ClientID(ctx).Result())(t)
	killUpstreamConnections(t, ctx)
	for ctx.Err() == nil {
		err := client.Set(ctx, key, "after", 0).Err()
		if err == nil {
			break
		}
		if !strings.HasPrefix(err.Error(), "UPSTREAM ") {
			t.Fatalf("a lost upstream is told so: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	gives(client.Get(ctx, key).Result())(t, "after")
	if admin != "" {
		// The client's own connection has not noticed.
		gives(client.ClientID(ctx).Result())(t, id)
	}
}

func TestErrorsAreTheServers(t *testing.T) {
	ctx, client := newContext(t), newClient(t)
	gives(client.RPush(ctx, keyOf(t, "l"), 1).Result())(t, 1)
	var reply redis.Error
	err := client.Get(ctx, keyOf(t, "l")).Err()
	if !errors.As(err, &reply) || reply.Error() != "WRONGTYPE Operation against a key holding the wrong kind of value" {
		t.Fatalf("read of a list as a string: %T %v", err, err)
	}
	err = client.Do(ctx, "NOSUCH").Err()
	if !errors.As(err, &reply) || !strings.HasPrefix(reply.Error(), "ERR unknown command 'NOSUCH'") {
		t.Fatalf("a command that does not exist: %T %v", err, err)
	}
	gives(client.Ping(ctx).Result())(t, "PONG")
}

func TestManyClientsReadWhatTheyWrote(t *testing.T) {
	const clients, turns = 50, 100
	ctx := newContext(t)
	total := keyOf(t, "total")
	var group sync.WaitGroup
	for number := range clients {
		client := newClient(t)
		key := fmt.Sprintf("go:%s:%d", t.Name(), number)
		group.Go(func() {
			if err := writeAndRead(ctx, client, key, total, turns); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	gives(newClient(t).Get(ctx, total).Int())(t, clients*turns)
}

func writeAndRead(ctx context.Context, client *redis.Client, key, total string, turns int) error {
	for turn := range turns {
		if err := client.Set(ctx, key, turn, 0).Err(); err != nil {
			return err
		}
		for range 2 {
			if read, err := client.Get(ctx, key).Int(); err != nil || read != turn {
				return fmt.Errorf("%s: read %d after %d was written: %v", key, read, turn, err)
			}
		}
		if err := client.Incr(ctx, total).Err(); err != nil {
			return err
		}
	}
	return nil
}
