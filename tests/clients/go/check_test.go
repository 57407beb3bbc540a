package clients

import (
	"reflect"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
}

// ok gives the result of a call that may not fail: ok(client.Get(ctx, key).Result())(t).
func ok[T any](result T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return result
	}
}

// gives checks the result of a call that may not fail: gives(client.Get(ctx, key).Result())(t, "value").
func gives[T any](result T, err error) func(*testing.T, T) {
	return func(t *testing.T, expected T) {
		t.Helper()
		must(t, err)
		equal(t, result, expected)
	}
}

func equal[T any](t *testing.T, result, expected T) {
	t.Helper()
	if !reflect.DeepEqual(result, expected) {
		t.Fatalf("got %v, expected %v", result, expected)
	}
}
