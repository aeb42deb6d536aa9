// The peer plays a Pyroscope server for tests: it takes pushes through the published API's own handlers,
// decodes and checks them as a server does, and says what it has received.
//
// Its first line on standard output is "listening on URL".
package main

import (
	"crypto/subtle"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"
	"github.com/grafana/pyroscope/api/gen/proto/go/querier/v1/querierv1connect"
)

// Series is one accepted profile, as the read-back API shows it.
type Series struct {
	Labels      map[string]string `json:"labels"`
	ID          string            `json:"id"`
	SampleTypes []string          `json:"sample_types"`
	Samples     int               `json:"samples"`
	Totals      []int64           `json:"totals"`
	Functions   []string          `json:"functions"`
	Comments    []string          `json:"comments"`
	TimeNanos   int64             `json:"time_nanos"`
	Duration    int64             `json:"duration_nanos"`
	Compressed  bool              `json:"compressed"`
	tenant      string
	raw         []byte
}

// Push is one accepted request.
type Push struct {
	Tenant     string              `json:"tenant"`
	Header     map[string][]string `json:"header"`
	Proto      string              `json:"proto"`
	Connection string              `json:"connection"`
	Series     []Series            `json:"series"`
}

type store struct {
	mu     sync.Mutex
	pushes []Push
}

func (s *store) add(push Push) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pushes = append(s.pushes, push)
}

func (s *store) all() []Push {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Push{}, s.pushes...)
}

// The checks of a reverse proxy, which is where Pyroscope's authentication sits.
type gate struct {
	token, user, password string
	next                  http.Handler
}

func same(given, wanted string) bool {
	return subtle.ConstantTimeCompare([]byte(given), []byte(wanted)) == 1
}

func (g gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.token != "" {
		if !same(r.Header.Get("Authorization"), "Bearer "+g.token) {
			http.Error(w, "wrong token", http.StatusUnauthorized)
			return
		}
	}
	if g.user != "" {
		user, password, ok := r.BasicAuth()
		if !ok || !same(user, g.user) || !same(password, g.password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="profiles"`)
			http.Error(w, "wrong user or password", http.StatusUnauthorized)
			return
		}
	}
	g.next.ServeHTTP(w, r)
}

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	token := flag.String("token", "", "bearer token to ask for")
	user := flag.String("user", "", "user to ask for (HTTP basic)")
	password := flag.String("password", "", "password to ask for (HTTP basic)")
	tenants := flag.Bool("multitenancy", false, "ask for X-Scope-OrgID")
	tlsCA := flag.String("tls-ca", "", "serve TLS with a fresh certificate for localhost, and write its authority here")
	flag.Parse()

	kept := &store{}
	mux := http.NewServeMux()
	limits := &limiter{buckets: map[string]*bucket{}}
	mux.Handle(pushv1connect.NewPusherServiceHandler(&pusher{store: kept, limiter: limits, multitenancy: *tenants}))
	mux.Handle(querierv1connect.NewQuerierServiceHandler(&querier{store: kept}))
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ready") })

	// The read-back API is outside the gate: it is the test's, not the client's.
	outer := http.NewServeMux()
	outer.HandleFunc("GET /peer/pushes", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(kept.all()); err != nil {
			log.Print(err)
		}
	})
	outer.Handle("/", gate{*token, *user, *password, mux})

	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	scheme, host := "http", listener.Addr().String()
	if *tlsCA != "" {
		scheme = "https"
		host = strings.Replace(host, "127.0.0.1", "localhost", 1)
		if listener, err = withTLS(listener, *tlsCA); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Fprintf(os.Stdout, "listening on %s://%s\n", scheme, host)
	log.Fatal((&http.Server{Handler: outer, ConnContext: numbered()}).Serve(listener))
}
