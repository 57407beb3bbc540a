// A cache service as one writes it at home: go-redis and a sync.Map, behind a small RESP server.
// It knows GET, SET and PING. What it has once read it keeps, whoever changes it elsewhere.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// As many connections to Redis as the Python service has: by default there would be 10 for each core.
const poolSize = 50

type service struct {
	cache    sync.Map // string to []byte
	upstream *redis.Client
}

func main() {
	listen := flag.String("listen", "127.0.0.1:6380", "address to listen on")
	upstream := flag.String("upstream", "127.0.0.1:6379", "address of Redis")
	flag.Parse()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	serving := &service{upstream: redis.NewClient(&redis.Options{Addr: *upstream, PoolSize: poolSize})}
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go serving.serve(connection)
	}
}

// serve answers one client. Replies to a pipeline leave together.
func (s *service) serve(connection net.Conn) {
	defer connection.Close()
	in, out := bufio.NewReader(connection), bufio.NewWriter(connection)
	for {
		arguments, err := readCommand(in)
		if err != nil {
			return
		}
		s.answer(out, arguments)
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
}

func (s *service) answer(out *bufio.Writer, arguments [][]byte) {
	name := strings.ToUpper(string(arguments[0]))
	switch {
	case name == "PING" && len(arguments) == 1:
		out.WriteString("+PONG\r\n")
	case name == "GET" && len(arguments) == 2:
		s.get(out, string(arguments[1]))
	case name == "SET" && len(arguments) == 3:
		s.set(out, string(arguments[1]), arguments[2])
	default:
		fmt.Fprintf(out, "-ERR unknown command '%s'\r\n", arguments[0])
	}
}

func (s *service) get(out *bufio.Writer, key string) {
	if value, found := s.cache.Load(key); found {
		writeBulk(out, value.([]byte))
		return
	}
	value, err := s.upstream.Get(context.Background(), key).Bytes()
	switch {
	case errors.Is(err, redis.Nil):
		out.WriteString("$-1\r\n")
	case err != nil:
		fmt.Fprintf(out, "-ERR %v\r\n", err)
	default:
		s.cache.Store(key, value)
		writeBulk(out, value)
	}
}

func (s *service) set(out *bufio.Writer, key string, value []byte) {
	if err := s.upstream.Set(context.Background(), key, value, 0).Err(); err != nil {
		fmt.Fprintf(out, "-ERR %v\r\n", err)
		return
	}
	s.cache.Store(key, value)
	out.WriteString("+OK\r\n")
}

func writeBulk(out *bufio.Writer, value []byte) {
	fmt.Fprintf(out, "$%d\r\n", len(value))
	out.Write(value)
	out.WriteString("\r\n")
}

// readCommand reads an array of bulk strings, at least one.
func readCommand(in *bufio.Reader) ([][]byte, error) {
	count, err := readLength(in, '*')
	if err != nil || count < 1 {
		return nil, errors.Join(err, errors.New("not a command"))
	}
	arguments := make([][]byte, count)
	for index := range arguments {
		length, err := readLength(in, '$')
		if err != nil {
			return nil, err
		}
		argument := make([]byte, length+2)
		if _, err := io.ReadFull(in, argument); err != nil {
			return nil, err
		}
		arguments[index] = argument[:length]
	}
	return arguments, nil
}

// The longest value, as of Redis itself.
const maxLength = 512 << 20

// readLength reads a line of a kind and a number.
func readLength(in *bufio.Reader, kind byte) (int, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 4 || line[0] != kind {
		return 0, fmt.Errorf("not a length: %q", line)
	}
	length := 0
	for _, digit := range line[1 : len(line)-2] {
		if digit < '0' || digit > '9' || length > maxLength {
			return 0, fmt.Errorf("not a length: %q", line)
		}
		length = 10*length + int(digit-'0')
	}
	return length, nil
}
