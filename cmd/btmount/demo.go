package main

import (
	"errors"

	"github.com/urfave/cli/v2"
)

func demoCommand() *cli.Command {
	return &cli.Command{Name: "demo", Action: func(c *cli.Context) error { return errors.New("later") }}
}
