// Command control serves tailscale's own test control server for the faults that headscale will not show:
// machine approval, rate limits, a server that answers and then hangs.
//
// Beside the control protocol it takes orders under /lab/: GET nodes, POST complete-auth (url=…), POST approve.
// It prints "ready" once its socket is open.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
)

var (
	listen             = flag.String("listen", "127.0.0.1:8090", "TCP `address` to serve")
	baseURL            = flag.String("url", "http://127.0.0.1:8090", "`URL` the clients know it by")
	derpHost           = flag.String("derp-host", "", "`host` of the DERP and STUN server")
	derpPort           = flag.Int("derp-port", 3443, "TCP `port` of DERP")
	stunPort           = flag.Int("stun-port", 3478, "UDP `port` of STUN")
	domain             = flag.String("domain", "control.test", "MagicDNS `domain`")
	requireAuth        = flag.Bool("require-auth", false, "answer a registration with a URL to visit")
	requireAuthKey     = flag.String("require-auth-key", "", "the only auth `key` accepted")
	requireMachineAuth = flag.Bool("require-machine-auth", false, "new machines wait for approval")
	rateLimit          = flag.Int64("rate-limit", 0, "answer the first `N` registrations with 429")
	hangMap            = flag.Bool("hang-map", false, "take map requests and never answer")
	hangRegister       = flag.Bool("hang-register", false, "take registrations and never answer")
)

func main() {
	flag.Parse()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	server := newServer()
	mux := http.NewServeMux()
	for _, path := range []string{"/key", "/machine/", "/ts2021", "/c2n/", "/generate_204"} {
		mux.Handle(path, server) // and nothing else: testcontrol panics at a path it does not know
	}
	addOrders(mux, server)
	fmt.Println("ready")
	log.Fatal(http.Serve(listener, mux))
}

func newServer() *testcontrol.Server {
	server := &testcontrol.Server{
		DERPMap:            derpMap(),
		RequireAuth:        *requireAuth || *requireAuthKey != "",
		RequireAuthKey:     *requireAuthKey,
		RequireMachineAuth: *requireMachineAuth,
		DNSConfig:          &tailcfg.DNSConfig{Proxied: true},
		MagicDNSDomain:     *domain,
		AllNodesSameUser:   true,
		AllOnline:          true,
		ExplicitBaseURL:    strings.TrimSuffix(*baseURL, "/"),
	}
	var refused atomic.Int64
	server.MaybeRateLimitRegister = func() (bool, string, string) {
		if *hangRegister {
			select {}
		}
		return refused.Add(1) <= *rateLimit, "2", "too many registrations"
	}
	if *hangMap {
		server.HoldMapRequest = func(*tailcfg.MapRequest) func() { select {} }
	}
	return server
}

func derpMap() *tailcfg.DERPMap {
	return &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{
		1: {RegionID: 1, RegionCode: "lab", RegionName: "Lab", Nodes: []*tailcfg.DERPNode{{
			Name: "1a", RegionID: 1, HostName: *derpHost, IPv4: *derpHost, IPv6: "none",
			DERPPort: *derpPort, STUNPort: *stunPort, InsecureForTests: true,
		}}},
	}}
}

// addOrders lets a test see the nodes and play the administrator.
func addOrders(mux *http.ServeMux, server *testcontrol.Server) {
	mux.HandleFunc("GET /lab/nodes", func(w http.ResponseWriter, _ *http.Request) {
		if err := json.NewEncoder(w).Encode(server.AllNodes()); err != nil {
			log.Print(err)
		}
	})
	mux.HandleFunc("POST /lab/complete-auth", func(w http.ResponseWriter, r *http.Request) {
		if !server.CompleteAuth(r.FormValue("url")) {
			http.Error(w, "no such login", http.StatusNotFound)
		}
	})
	mux.HandleFunc("POST /lab/approve", func(_ http.ResponseWriter, _ *http.Request) {
		for _, node := range server.AllNodes() {
			node.MachineAuthorized = true
			server.UpdateNode(node)
		}
	})
}
