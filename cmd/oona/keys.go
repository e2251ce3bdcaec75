package main

import (
	"fmt"

	"github.com/morphogenetic/oona/internal/access"
)

type keysCommand struct {
	Token tokenCommand `cmd:"" help:"Make a token for a client, and print it and the line for the access file (--listen-access-file, --admin-access-file). Nothing is stored."`
}

type tokenCommand struct{}

// Run prints a new token and its hash.
func (tokenCommand) Run(to streams) error {
	token := access.NewToken()
	_, err := fmt.Fprintf(to.out, "The token, for the client. It is not shown again:\n%s\n\nIts SHA-256, for the list \"tokens\" of an identity in the access file:\n      - %s\n", token, access.HashOf(token))
	return err
}
