package configcheck

import (
	"slices"
	"strings"
	"testing"
)

func TestOneHost(t *testing.T) {
	const (
		instance = ": instance is h, the name of the host, which ingest 0 has, too; give each ingest its own (--instance), or frames that go through the slower one are late"
		at       = "; on one host, two workers cannot listen on the same port"
	)
	for name, test := range map[string]struct {
		workers         [][2]string // kind and settings
		faults, perhaps []string
	}{
		"all defaults": {[][2]string{
			{Ingest, "listen: 127.0.0.1:8080, admin-address: 127.0.0.1:9101"}, {Aggregate, "admin-address: 127.0.0.1:9102"}, {Exporter, "admin-address: 127.0.0.1:9103"},
		}, nil, nil},
		"free ports": {[][2]string{{Aggregate, "admin-address: 127.0.0.1:0"}, {Aggregate, "admin-address: 127.0.0.1:0"}}, nil, nil},
		"replicas in their own pods": {[][2]string{
			{Aggregate, "admin-address: 0.0.0.0:9100"}, {Exporter, "admin-address: 0.0.0.0:9100"},
		}, nil, []string{"exporter 1: admin-address is 0.0.0.0:9100, and admin-address of aggregate 0 is 0.0.0.0:9100" + at}},
		"one address": {[][2]string{
			{Ingest, "listen: 10.0.0.1:9102, admin-address: 127.0.0.1:9101"}, {Aggregate, "admin-address: 10.0.0.1:9102"},
		}, []string{"aggregate 1: admin-address is 10.0.0.1:9102, and listen of ingest 0 is 10.0.0.1:9102" + at}, nil},
		"one host, as other ports show": {[][2]string{
			{Ingest, "listen: 10.0.0.1:8080, admin-address: 0.0.0.0:9100, instance: a"}, {Ingest, "listen: 10.0.0.1:8081, admin-address: 0.0.0.0:9100, instance: b"},
		}, []string{"ingest 1: admin-address is 0.0.0.0:9100, and admin-address of ingest 0 is 0.0.0.0:9100" + at}, nil},
		"two hosts": {[][2]string{
			{Ingest, "listen: 10.0.0.1:8080, admin-address: 0.0.0.0:9100, instance: h"}, {Ingest, "listen: 10.0.0.2:8080, admin-address: 0.0.0.0:9100, instance: h"},
		}, nil, nil},
		"two ingests of the default name, with their own ports": {[][2]string{
			{Ingest, "listen: 127.0.0.1:8080, admin-address: 127.0.0.1:9101, instance: h"}, {Ingest, "listen: 127.0.0.1:8081, admin-address: 127.0.0.1:9102, instance: h"},
		}, []string{"ingest 1" + instance}, nil},
		"of one address": {[][2]string{
			{Ingest, "listen: 10.0.0.1:8080, admin-address: 127.0.0.1:9101, instance: h"}, {Ingest, "listen: 10.0.0.1:8081, admin-address: 127.0.0.1:9102, instance: h"},
		}, []string{"ingest 1" + instance}, nil},
		"with the same ports": {[][2]string{
			{Ingest, "listen: 0.0.0.0:8080, admin-address: 127.0.0.1:9101, instance: h"}, {Ingest, "listen: 0.0.0.0:8080, admin-address: 127.0.0.1:9102, instance: h"},
		}, nil, []string{"ingest 1: listen is 0.0.0.0:8080, and listen of ingest 0 is 0.0.0.0:8080" + at, "ingest 1" + instance}},
	} {
		t.Run(name, func(t *testing.T) {
			var workers []Worker
			for i, w := range test.workers {
				workers = append(workers, workerOf(t, w[0], string(rune('0'+i)), "{"+w[1]+"}"))
				workers[i].given = nil // as if they were defaults
			}
			faults, perhaps := OneHost(workers)
			if !slices.Equal(faults, test.faults) || !slices.Equal(perhaps, test.perhaps) {
				t.Errorf("faults\n%s\nwant\n%s\nperhaps\n%s\nwant\n%s", strings.Join(faults, "\n"), strings.Join(test.faults, "\n"), strings.Join(perhaps, "\n"), strings.Join(test.perhaps, "\n"))
			}
		})
	}
}
