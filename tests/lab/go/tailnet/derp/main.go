// Command derp is the lab's relay: one DERP server over self-signed TLS, and STUN beside it.
//
// Its clients must be told InsecureForTests in their DERP map. It prints "ready" once both sockets are open.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"

	"tailscale.com/derp/derpserver"
	"tailscale.com/net/stunserver"
	"tailscale.com/types/key"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:3443", "TCP `address` of the DERP server")
	stun := flag.String("stun", "127.0.0.1:3478", "UDP `address` of the STUN server")
	flag.Parse()

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	relay := httptest.NewUnstartedServer(derpHandler())
	relay.Listener.Close() // httptest opened one of its own choice
	relay.Listener = listener
	// DERP takes the connection over (Hijack), which HTTP/2 cannot do.
	relay.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	relay.StartTLS()

	mirror := stunserver.New(context.Background())
	if err := mirror.Listen(*stun); err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready")
	log.Fatal(mirror.Serve())
}

// derpHandler serves the relay itself and the paths that clients measure its latency with.
func derpHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/derp", derpserver.Handler(derpserver.New(key.NewNode(), log.Printf)))
	mux.HandleFunc("/derp/probe", derpserver.ProbeHandler)
	mux.HandleFunc("/derp/latency-check", derpserver.ProbeHandler)
	mux.HandleFunc("/generate_204", derpserver.ServeNoContent)
	return mux
}
