package clients

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
)

// connect makes one more client of the kind that a test is run with.
type connect func() redis.UniversalClient

// forEachClient runs a test with each of go-redis's clients that the upstream at hand allows.
func forEachClient(t *testing.T, test func(t *testing.T, ctx context.Context, connect connect)) {
	isCluster := os.Getenv("NEARSIDE_TEST_UPSTREAM") == "cluster"
	t.Run("Client", func(t *testing.T) {
		if isCluster && admin == "" {
			t.Skip("without Nearside a client of one server cannot use a cluster")
		}
		test(t, newContext(t), func() redis.UniversalClient { return newClient(t) })
	})
	t.Run("ClusterClient", func(t *testing.T) {
		if !isCluster {
			t.Skip("before a standalone server Nearside shows no cluster")
		}
		test(t, newContext(t), func() redis.UniversalClient { return newClusterClient(t) })
	})
}

// atOnce runs functions beside each other, and ends the test with what one of them could not do.
func atOnce(t *testing.T, functions ...func() error) {
	t.Helper()
	results := make(chan error, len(functions))
	for _, function := range functions {
		go func() { results <- function() }()
	}
	for range functions {
		must(t, <-results)
	}
}

// times is so many of one function, for atOnce.
func times(count int, function func() error) []func() error {
	functions := make([]func() error, count)
	for place := range functions {
		functions[place] = function
	}
	return functions
}

// onEveryMaster calls a function for each node of a cluster, as the client does not do by itself for what has no keys; for a
// client of one server once.
func onEveryMaster(t *testing.T, ctx context.Context, client redis.UniversalClient, call func(context.Context, redis.Cmdable) error) {
	t.Helper()
	cluster, isCluster := client.(*redis.ClusterClient)
	if !isCluster {
		must(t, call(ctx, client))
		return
	}
	// One after the other: several nodes would be called at once.
	var gate sync.Mutex
	must(t, cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		gate.Lock()
		defer gate.Unlock()
		return call(ctx, node)
	}))
}
