package kafka_test

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/bus"
	"github.com/morphogenetic/oona/bus/kafka"
	"github.com/morphogenetic/oona/internal/localkafka"
	"github.com/morphogenetic/oona/internal/secret"
)

func (k *secureKafka) allow(t *testing.T, acls ...localkafka.ACL) {
	t.Helper()
	if err := k.Allow(t.Context(), acls...); err != nil {
		t.Fatal(err)
	}
}

func (k *secureKafka) forbid(t *testing.T, acls ...localkafka.ACL) {
	t.Helper()
	if err := k.Forbid(t.Context(), acls...); err != nil {
		t.Fatal(err)
	}
}

// user returns the connection of a user who has no permissions, and a function that
// returns one of its ACLs.
func (k *secureKafka) user(t *testing.T, name string) (kafka.Config, func(operation, resource, of string) localkafka.ACL) {
	t.Helper()
	return k.config("sasl", k.token(t, localkafka.UnsecuredToken(name, time.Now().Add(time.Hour)))),
		func(operation, resource, of string) localkafka.ACL {
			return localkafka.ACL{User: name, Operation: operation, Resource: resource, Name: of}
		}
}

// operations returns all operations of a bus, except those of members.
func operations(t *testing.T, b *kafka.Bus, topic, group string) map[string]func() error {
	spec := oona.TopicSpec{Name: topic, Partitions: 2}
	return map[string]func() error{
		"Publish": func() error { return publishOne(t, b, topic) },
		"Publisher": func() error {
			p, err := b.Publisher(bus.PublisherOptions{Pin: topic})
			if err != nil {
				return err
			}
			return p.Close()
		},
		"Extents": func() error { _, err := b.Extents(t.Context(), topic); return err },
		"Commits": func() error { _, err := b.Commits(t.Context(), group, topic); return err },
		"Members": func() error { _, err := b.Members(t.Context(), group); return err },
		"SetCommits": func() error {
			return b.SetCommits(t.Context(), group, topic, map[int32]bus.Commit{0: {Offset: 0}})
		},
		"RemoveMember": func() error {
			if err := b.RemoveMember(t.Context(), group, "instance"); !errors.Is(err, bus.ErrNoMember) {
				return err
			}
			return nil
		},
		"Retention": func() error { _, err := b.Retention(t.Context(), topic); return err },
		"Check":     func() error { return b.Check(t.Context(), []oona.TopicSpec{spec}) },
		"Apply":     func() error { _, err := b.Apply(t.Context(), []oona.TopicSpec{spec}); return err },
		"Read": func() error {
			return b.Read(t.Context(), topic, bus.Range{Partition: 1, End: 1 << 40}, func(*message.Message) error { return nil })
		},
		"Subscribe": func() error {
			r, err := b.Reader(bus.ReaderOptions{})
			if err != nil {
				return err
			}
			_, err = r.Subscribe(t.Context(), topic)
			return errors.Join(err, r.Close())
		},
	}
}

// testDenied tries each operation without permissions, and with too few permissions.
func testDenied(t *testing.T, k *secureKafka) {
	topic := k.makeTopic(t, 2)
	if err := publishOne(t, kafka.New(k.config("", kafka.Security{}), nil), topic); err != nil {
		t.Fatal(err)
	}
	const group = "denied"
	cfg, acl := k.user(t, "denied")
	b := kafka.New(cfg, nil)
	denied := func(title string, names ...string) {
		t.Helper()
		for name, do := range operations(t, b, topic, group) {
			began := time.Now()
			err := do()
			if want := len(names) == 0 || slices.Contains(names, name); want != errors.Is(err, bus.ErrDenied) || !want && err != nil {
				t.Errorf("%s: the error of %s is %v; denied: %t", title, name, err, want)
			}
			if took := time.Since(began); took > 50*time.Second { // Apply would try for a minute
				t.Errorf("%s: %s took %v to fail", title, name, took)
			}
		}
	}
	denied("nothing is allowed")
	k.allow(t, acl("describe", "topic", topic))
	eventually(t, "the topic is seen", func() bool { _, err := b.Extents(t.Context(), topic); return err == nil })
	denied("topic: describe", "Publish", "Commits", "Members", "SetCommits", "RemoveMember", "Retention", "Check", "Apply", "Read")
	k.allow(t, acl("describe-configs", "topic", topic), acl("write", "topic", topic), acl("describe", "group", group))
	eventually(t, "the topic is written", func() bool { return publishOne(t, b, topic) == nil })
	denied("topic: write; group: describe", "SetCommits", "RemoveMember", "Read")
	k.allow(t, acl("read", "topic", topic), acl("read", "group", group))
	eventually(t, "the group is read", func() bool {
		return b.SetCommits(t.Context(), group, topic, map[int32]bus.Commit{0: {Offset: 0}}) == nil
	})
	denied("read, too", "none")

	other := oona.TopicSpec{Name: unique("other"), Partitions: 1}
	if _, err := b.Apply(t.Context(), []oona.TopicSpec{other}); !errors.Is(err, bus.ErrDenied) {
		t.Errorf("made a topic: %v", err)
	}
	wrong := oona.TopicSpec{Name: topic, Partitions: 2, Compacted: true}
	if _, err := b.Apply(t.Context(), []oona.TopicSpec{wrong}); !errors.Is(err, bus.ErrDenied) {
		t.Errorf("configured a topic: %v", err)
	}
}

// testAccessComesAndGoes takes permissions from a member and a publisher while they run.
func testAccessComesAndGoes(t *testing.T, k *secureKafka) {
	topic := k.makeTopic(t, 1)
	const group = "comes-and-goes"
	cfg, acl := k.user(t, "comes-and-goes")
	write, read, join := acl("write", "topic", topic), acl("read", "topic", topic), acl("read", "group", group)
	log := new(logged)
	b := kafka.New(cfg, slog.New(log))
	m, err := b.Member(bus.MemberOptions{Group: group, CommitEvery: 50 * time.Millisecond}, newOwner())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	messages := subscribe(t, m, topic)
	until := func(what string, denied bool) {
		t.Helper()
		eventually(t, what, func() bool {
			err := m.Joined()
			return denied == errors.Is(err, bus.ErrDenied) && (denied || err == nil)
		})
	}
	until("a member without permissions is not ready", true)
	k.allow(t, read)
	eventually(t, "a group without permissions is logged", func() bool { return log.has("group") })
	until("nor is one that may only read the topic", true)
	k.allow(t, join, write)
	until("with permissions, it is ready", false)
	p := newPublisher(t, cfg, bus.PublisherOptions{DeliveryTimeout: 3 * time.Second})
	one := func() error {
		return p.Publish(t.Context(), topic, bus.NewMessage([]byte("m"), bus.Target{Directed: true}))
	}
	eventually(t, "the publisher publishes", func() bool { return one() == nil })
	take(t, messages, 1)
	for what, a := range map[string]localkafka.ACL{"topic": read, "group": join} {
		k.forbid(t, a)
		until("the member is not ready without permission to read the "+what, true)
		k.allow(t, a)
		until("the member is ready again after permission to read the "+what, false)
	}
	k.forbid(t, write)
	eventually(t, "the publisher is denied", func() bool { return errors.Is(one(), bus.ErrDenied) })
	k.allow(t, write)
	eventually(t, "the publisher publishes again", func() bool { return one() == nil })
	take(t, messages, 1)
}

// testReaderWaitsForAccess reads a topic whose records it may not read at first.
func testReaderWaitsForAccess(t *testing.T, k *secureKafka) {
	topic := k.makeTopic(t, 2)
	if err := publishOne(t, kafka.New(k.config("", kafka.Security{}), nil), topic); err != nil {
		t.Fatal(err)
	}
	cfg, acl := k.user(t, "reader")
	k.allow(t, acl("describe", "topic", topic))
	log := new(logged)
	r, err := kafka.New(cfg, slog.New(log)).Reader(bus.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var messages <-chan *message.Message
	eventually(t, "the topic is seen", func() bool { messages, err = r.Subscribe(t.Context(), topic); return err == nil })
	eventually(t, "denied access is logged", func() bool { return log.has("cannot read from a partition") })
	k.allow(t, acl("read", "topic", topic))
	take(t, messages, 1)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// testBriefSessions publishes and reads for longer than a session lasts. Clients with a
// token or SCRAM authenticate again. Connections with PLAIN are closed and opened again.
func testBriefSessions(t *testing.T, k *secureKafka) {
	for name, security := range map[string]kafka.Security{
		"plain":         k.with(t, "plain", "admin", "secret-admin"),
		"scram-sha-256": k.with(t, "scram-sha-256", "admin", "secret-admin"),
		"oauthbearer":   k.token(t, localkafka.UnsecuredToken("admin", time.Now().Add(time.Hour))),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topic := k.makeTopic(t, 1)
			cfg := kafka.Patient(k.config("brief", security))
			o := newOwner()
			m := newGroup(t, cfg, "brief-"+name, o)
			messages := subscribe(t, m, topic)
			p := newPublisher(t, cfg, bus.PublisherOptions{})
			for began := time.Now(); time.Since(began) < 3*briefSession; time.Sleep(200 * time.Millisecond) {
				publish(t, p, topic, newMessage("m", toPartition, "0"))
				take(t, messages, 1)
			}
			if err := m.Joined(); err != nil {
				t.Errorf("the member is not in its group: %v", err)
			}
			o.await(t, "assigned", 1)
			if len(o.events) > 0 {
				t.Errorf("the partition was assigned again: %+v", <-o.events)
			}
		})
	}
}

// testRotation changes all passwords, certificates and authorities on both sides while
// clients run. The clients continue without a restart. The old passwords and certificates are refused.
func testRotation(t *testing.T, k *secureKafka) {
	topic := k.makeTopic(t, 2)
	all := localkafka.ACL{User: "renewed", Operation: "all", Resource: "topic", Name: topic}
	byCertificate := all
	byCertificate.User = "CN=renewed"
	groups := localkafka.ACL{User: "*", Operation: "read", Resource: "group", Name: "rotation-", Prefixed: true}
	k.allow(t, all, byCertificate, groups)
	certificate := k.ca.Issue(time.Hour, "renewed")
	clients := map[string]kafka.Config{
		"scram-sha-512": k.config("sasl", k.with(t, "scram-sha-512", "renewed", "secret-1")),
		"plain":         k.config("sasl", k.with(t, "plain", "renewed", "secret-1")),
		"certificate":   k.config("mtls", k.certificate(certificate)),
	}
	type running struct {
		publisher *kafka.Publisher
		messages  <-chan *message.Message
	}
	started := make(map[string]running)
	for name, cfg := range clients {
		cfg.Secrets = secret.NewFiles(discard())
		m := newGroup(t, cfg, "rotation-"+name, newOwner())
		r := running{newPublisher(t, cfg, bus.PublisherOptions{DeliveryTimeout: 3 * time.Second}), subscribe(t, m, topic)}
		publish(t, r.publisher, topic, newMessage(name, toPartition, "0"))
		started[name] = r
	}
	for _, r := range started {
		take(t, r.messages, len(started))
	}
	// Configurations with the old files, which must be refused after the change.
	old := map[string]kafka.Config{
		"scram-sha-512": k.config("sasl", k.with(t, "scram-sha-512", "renewed", "secret-1")),
		"plain":         k.config("sasl", k.with(t, "plain", "renewed", "secret-1")),
		"certificate":   k.config("mtls", k.certificate(k.ca.Issue(time.Hour, "older"))),
	}

	newer := k.other
	if err := k.SetPassword(t.Context(), "renewed", "secret-2"); err != nil {
		t.Fatal(err)
	}
	server, err := newer.Authority.Issue(time.Hour, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range k.secure.Listeners {
		l.Certificate = server
		if l.ClientCA != nil {
			l.ClientCA = newer.PEM
		}
		k.secure.Listeners[i] = l
	}
	renewed := newer.Issue(time.Hour, "renewed")
	copyFile(t, newer.File, k.ca.File)
	copyFile(t, renewed.CertFile, certificate.CertFile)
	copyFile(t, renewed.KeyFile, certificate.KeyFile)
	for _, name := range []string{"scram-sha-512", "plain"} {
		writeFile(t, clients[name].Security.PasswordFile, "secret-2")
	}
	if err := k.Restart(t.Context(), 1); err != nil { // it also ends all connections
		t.Fatal(err)
	}
	for name, r := range started {
		eventually(t, name+" publishes again", func() bool {
			return r.publisher.Publish(t.Context(), topic, newMessage("again", toPartition, "1")) == nil
		})
	}
	for _, r := range started {
		for again := 0; again < len(started); {
			msg := next(t, r.messages)
			if string(msg.Payload) == "again" {
				again++
			}
			msg.Ack()
		}
	}
	for name, cfg := range old {
		want := bus.ErrCredentials
		if name == "certificate" {
			want = bus.ErrUntrusted
		}
		if _, err := kafka.New(cfg, nil).Extents(t.Context(), topic); !errors.Is(err, want) {
			t.Errorf("%s: the old one gives %v, want %v", name, err, want)
		}
	}
}
