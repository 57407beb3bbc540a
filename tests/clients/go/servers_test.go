package clients

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// What tests/clients/with-upstream tells of the servers that it started.
var (
	address       = os.Getenv("NEARSIDE_ADDRESS")
	admin         = os.Getenv("NEARSIDE_ADMIN") // empty: clients reach the Redis itself
	upstreamPorts = strings.Fields(os.Getenv("NEARSIDE_TEST_UPSTREAM_PORTS"))
)

// How long a test may take: many times what it needs, as machines may be busy.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	if address == "" {
		fmt.Fprintln(os.Stderr, "run it so: tests/clients/with-upstream go -C tests/clients/go test -count=1 ./...")
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// newClient is a client as most programs have it: told where to connect, and nothing else.
func newClient(t *testing.T) *redis.Client {
	t.Helper()
	return clientOf(t, address)
}

func clientOf(t *testing.T, address string) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: address})
	t.Cleanup(func() { must(t, client.Close()) })
	return client
}

func newContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// keyOf names a key of this test's own. All keys of a test are in one slot, so that one command may name several.
func keyOf(t *testing.T, name string) string {
	return "{go:" + t.Name() + "}" + name
}

// killUpstreamConnections has the Redis servers close every connection but the one that asks for it.
func killUpstreamConnections(t *testing.T, ctx context.Context) {
	t.Helper()
	killed := int64(0)
	for _, port := range upstreamPorts {
		server := clientOf(t, "127.0.0.1:"+port)
		for _, kind := range []string{"normal", "pubsub"} {
			killed += ok(server.ClientKillByFilter(ctx, "TYPE", kind, "SKIPME", "yes").Result())(t)
		}
	}
	if killed == 0 {
		t.Fatal("there was no upstream connection to kill")
	}
}

var hitsLine = regexp.MustCompile(`(?m)^nearside_cache_hits_total(?:\{.*\})? (\S+)$`)

// cacheHits is how many reads the cache has answered so far. Without Nearside there is no cache: the test is skipped.
func cacheHits(t *testing.T) float64 {
	t.Helper()
	if admin == "" {
		t.Skip("no cache without Nearside")
	}
	response := ok(http.Get("http://" + admin + "/metrics"))(t)
	defer response.Body.Close()
	body := ok(io.ReadAll(response.Body))(t)
	hits := 0.0
	for _, line := range hitsLine.FindAllSubmatch(body, -1) {
		hits += ok(strconv.ParseFloat(string(line[1]), 64))(t)
	}
	return hits
}
