package main

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The admin channel: each line is a command with its arguments, each answer one line, `ok …` or `error …`.
//
//	help                           ok, and the commands
//	regions                        ok, and for each region ID:STARTHEX:ENDHEX:VERSION:LEADERSTORE (keys as PD knows them)
//	stores                         ok, and for each store ID:ADDRESS
//	split KEYHEX                   ok LEFT RIGHT: splits at a user's key
//	transfer-leader REGION STORE   ok
//	stop-store N, start-store N    ok: breaks a store's connections and closes its port, opens it again
//	stop-pd, start-pd              ok: the same for PD
const adminHelp = "help regions stores split transfer-leader stop-store start-store stop-pd start-pd"

func (c *cluster) serveAdmin(in io.Reader, out io.Writer) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		answer, err := c.admin(words[0], words[1:])
		if err != nil {
			fmt.Fprintf(out, "error %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Fprintln(out, strings.TrimSpace("ok "+answer))
	}
}

func (c *cluster) admin(command string, args []string) (string, error) {
	switch command {
	case "help":
		return adminHelp, nil
	case "regions":
		return c.describeRegions(), nil
	case "stores":
		return c.describeStores(), nil
	case "split":
		return c.split(args)
	case "transfer-leader":
		numbers, err := parseNumbers(args, 2)
		if err != nil {
			return "", err
		}
		return "", c.topo.transferLeader(numbers[0], numbers[1])
	case "stop-store", "start-store":
		store, err := c.storeNamed(args)
		if err != nil {
			return "", err
		}
		if command == "stop-store" {
			return "", store.stop()
		}
		return "", store.start()
	case "stop-pd":
		return "", c.pd.stop()
	case "start-pd":
		return "", c.pd.start()
	default:
		return "", fmt.Errorf("unknown command %q", command)
	}
}

func parseNumbers(args []string, count int) ([]uint64, error) {
	if len(args) != count {
		return nil, fmt.Errorf("%d arguments expected", count)
	}
	numbers := make([]uint64, count)
	for i, arg := range args {
		n, err := strconv.ParseUint(arg, 10, 64)
		if err != nil {
			return nil, err
		}
		numbers[i] = n
	}
	return numbers, nil
}

func (c *cluster) storeNamed(args []string) (*endpoint, error) {
	numbers, err := parseNumbers(args, 1)
	if err != nil {
		return nil, err
	}
	if n := numbers[0]; n >= 1 && n <= uint64(len(c.stores)) {
		return c.stores[n-1], nil
	}
	return nil, errors.New("no such store")
}

func (c *cluster) split(args []string) (string, error) {
	if len(args) != 1 {
		return "", errors.New("a key is expected")
	}
	key, err := hex.DecodeString(args[0])
	if err != nil {
		return "", err
	}
	left, right, err := c.topo.split(key)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d %d", left.meta.Id, right.meta.Id), nil
}

func (c *cluster) describeRegions() string {
	var all []string
	for _, r := range c.topo.scan(nil, nil, 0) {
		all = append(all, fmt.Sprintf("%d:%x:%x:%d:%d",
			r.meta.Id, r.meta.StartKey, r.meta.EndKey, r.meta.RegionEpoch.Version, r.leader.StoreId))
	}
	return strings.Join(all, " ")
}

func (c *cluster) describeStores() string {
	var all []string
	for _, s := range c.topo.allStores() {
		all = append(all, fmt.Sprintf("%d:%s", s.Id, s.Address))
	}
	return strings.Join(all, " ")
}
