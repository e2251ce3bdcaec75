package address

import (
	"net"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Address{
		":8080":              {"", 8080},
		"127.0.0.1:0":        {"127.0.0.1", 0},
		"127.0.0.1:http":     {"127.0.0.1", 80},
		"[::1]:65535":        {"::1", 65535},
		"[fe80::1%eth0]:1":   {"fe80::1%eth0", 1},
		"kafka-0.kafka:9092": {"kafka-0.kafka", 9092},
		"my_host.example.:1": {"my_host.example.", 1},
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%q is %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "8080", "nonsense", "12:30:45", "::1:80", "127.0.0.1:", ":-1", ":65536", "b:99999", ":no-such-service",
		" 127.0.0.1:80", "127.0.0.1:80 ", "127.0.0.1 :80", "256.0.0.1:80", "1.2.3:80", "a..b:80", "a b:80", "http://a:80", "a/b:80", "[::1:80",
	} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q is %+v, want an error", text, got)
		}
	}
}

// Parse refuses the addresses that net.Listen refuses without asking a name server.
func TestParseIsAsStrictAsListen(t *testing.T) {
	for _, text := range []string{"8080", "12:30:45", ":65536", ":no-such-service", ":-1"} {
		if listener, err := net.Listen("tcp", text); err == nil {
			listener.Close()
			t.Errorf("net.Listen takes %q", text)
		}
		if _, err := Parse(text); err == nil {
			t.Errorf("Parse takes %q", text)
		}
	}
}

func TestOverlaps(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true},
		{"127.0.0.1:80", "127.0.0.1:81", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
		{":80", "127.0.0.1:80", true},
		{"10.0.0.1:80", "0.0.0.0:80", true},
		{"[::]:80", "127.0.0.1:80", true},
		{"10.0.0.1:80", "127.0.0.1:80", false},
		{"127.0.0.1:80", "127.0.0.2:80", false},
		{"localhost:80", "127.0.0.1:80", true},
		{"localhost:80", "[::1]:80", true},
		{"localhost:80", "LOCALHOST:80", true},
		{"LOCALHOST:80", "127.0.0.1:80", true},
		{"localhost.:80", "[::1]:80", true},
		{"a:80", "b:80", false},
		{"a:80", "A.:80", true},
		// The same address in different forms.
		{"[::1]:80", "[0:0:0:0:0:0:0:1]:80", true},
		{"[::1%lo]:80", "[::1]:80", true},
		{"[::ffff:127.0.0.1]:80", "127.0.0.1:80", true},
		{"[::ffff:0.0.0.0]:80", "10.0.0.1:80", true},
		{"[FE80::1%eth0]:80", "[fe80::1%eth0]:80", true},
		{"[fe80::1%eth0]:80", "[fe80::1%eth1]:80", false},
	} {
		a, err := Parse(c.a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Parse(c.b)
		if err != nil {
			t.Fatal(err)
		}
		if a.Overlaps(b) != c.want || b.Overlaps(a) != c.want {
			t.Errorf("%s and %s overlap: want %t", c.a, c.b, c.want)
		}
	}
}

func TestSameMachine(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"10.0.0.1:80", "10.0.0.1:81", true},
		{"[::ffff:10.0.0.1]:80", "10.0.0.1:81", true},
		{"node:80", "NODE:81", true},
		{"10.0.0.1:80", "10.0.0.2:80", false},
		{"127.0.0.1:80", "127.0.0.1:80", false},
		{"localhost:80", "localhost:80", false},
		{":80", ":80", false},
		{"0.0.0.0:80", "0.0.0.0:80", false},
		{":80", "10.0.0.1:80", false},
	} {
		a, err := Parse(c.a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Parse(c.b)
		if err != nil {
			t.Fatal(err)
		}
		if a.SameMachine(b) != c.want || b.SameMachine(a) != c.want {
			t.Errorf("%s and %s are of one machine: want %t", c.a, c.b, c.want)
		}
	}
}
