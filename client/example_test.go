package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/lockwood-kms/lockwood/client"
)

// An agent calls an MCP server in the name of a user.
func ExampleClient_Transport() {
	lockwood, err := client.New("https://lockwood.example.com", client.StaticUserToken("the user's token"), nil)
	if err != nil {
		panic(err)
	}
	transport, err := lockwood.Transport("my-server", "https://mcp.example.com/mcp", nil)
	if err != nil {
		panic(err)
	}
	agent := &http.Client{Transport: transport}
	resp, err := agent.Get("https://mcp.example.com/mcp")
	switch {
	case errors.Is(err, client.ErrNeedsReauth):
		// Ask the user to connect the server again.
	case err != nil:
		// Lockwood or the server did not answer.
	default:
		_ = resp.Body.Close()
	}
}

// A program that has the auth secret acts for any user.
func ExampleSignedUserToken() {
	user, err := client.SignedUserToken("the value of FOREST_AUTH_SECRET", 7)
	if err != nil {
		panic(err)
	}
	lockwood, err := client.New("https://lockwood.example.com", user, nil)
	if err != nil {
		panic(err)
	}
	token, err := lockwood.AccessToken(context.Background(), "my-server", nil)
	if failed, ok := errors.AsType[*client.Error](err); ok && failed.Temporary() {
		fmt.Println("try again after", failed.RetryAfter)
		return
	}
	_ = token
}
