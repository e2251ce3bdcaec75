package localkafka

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// log4j2 writes to standard output, which goes to the node's log file.
const log4j2 = `<Configuration status="WARN">
  <Appenders>
    <Console name="out"><PatternLayout pattern="%d{ISO8601} %p %c{1}: %m%n"/></Console>
  </Appenders>
  <Loggers><Root level="INFO"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
`

// properties returns the server.properties of a node. Intervals are short, so that tests
// of failures are fast.
func (c *Cluster) properties(n *node) string {
	voters := make([]string, len(c.nodes))
	for i, v := range c.nodes {
		voters[i] = fmt.Sprintf("%d@127.0.0.1:%d", v.ID, v.ControllerPort)
	}
	listeners, advertised := "", ""
	if n.ProxyPort != 0 {
		listeners = ",PROXIED://" + loopback(n.ProxiedPort)
		advertised = ",PROXIED://" + loopback(n.ProxyPort)
	}
	secure, protocols, more := c.secureProperties(n)
	listeners, advertised = listeners+secure, advertised+secure
	replicas := len(c.nodes)
	inSync := max(1, replicas-1)
	lines := []string{
		"process.roles=broker,controller",
		fmt.Sprintf("node.id=%d", n.ID),
		"controller.quorum.voters=" + strings.Join(voters, ","),
		"listeners=PLAINTEXT://" + n.address() + ",CONTROLLER://" + loopback(n.ControllerPort) + listeners,
		"advertised.listeners=PLAINTEXT://" + n.address() + advertised,
		"inter.broker.listener.name=PLAINTEXT",
		"controller.listener.names=CONTROLLER",
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT" + protocols,
		"log.dirs=" + filepath.ToSlash(filepath.Join(n.dir, "data")),
		"num.network.threads=1",
		"num.io.threads=2",
		"auto.create.topics.enable=false",
		fmt.Sprintf("default.replication.factor=%d", replicas),
		fmt.Sprintf("min.insync.replicas=%d", inSync),
		fmt.Sprintf("offsets.topic.replication.factor=%d", replicas),
		"offsets.topic.num.partitions=3",
		fmt.Sprintf("transaction.state.log.replication.factor=%d", replicas),
		fmt.Sprintf("transaction.state.log.min.isr=%d", inSync),
		"transaction.state.log.num.partitions=3",
		fmt.Sprintf("share.coordinator.state.topic.replication.factor=%d", replicas),
		fmt.Sprintf("share.coordinator.state.topic.min.isr=%d", inSync),
		"share.coordinator.state.topic.num.partitions=3",
		"group.initial.rebalance.delay.ms=0",
		"broker.heartbeat.interval.ms=500",
		"broker.session.timeout.ms=3000",
	}
	return strings.Join(append(lines, more...), "\n") + "\n"
}

// write creates a node's directory and its configuration.
func (c *Cluster) write(n *node) error {
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return fmt.Errorf("make the directory of node %d: %w", n.ID, err)
	}
	for name, text := range map[string]string{n.propertiesFile(): c.properties(n), n.log4jFile(): c.log4j(), n.hostsFile(): n.hosts()} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return fmt.Errorf("configure node %d: %w", n.ID, err)
		}
	}
	return c.writeSecure(n)
}

// hosts returns a name for each address that the node listens on, in the form of
// /etc/hosts. Whenever a client authenticates with SASL, Kafka looks up the name of its
// own address, and meanwhile a network thread serves nobody. If it asked the DNS, a server
// that does not answer would stop the broker for many seconds.
func (n *node) hosts() string {
	text := "127.0.0.1 localhost\n"
	if n.Host != "" && n.Host != "127.0.0.1" {
		text += n.Host + " broker\n"
	}
	return text
}

func (n *node) propertiesFile() string { return filepath.Join(n.dir, "server.properties") }
func (n *node) log4jFile() string      { return filepath.Join(n.dir, "log4j2.xml") }
func (n *node) hostsFile() string      { return filepath.Join(n.dir, "hosts") }
func (n *node) logFile() string        { return filepath.Join(n.dir, "kafka.log") }
