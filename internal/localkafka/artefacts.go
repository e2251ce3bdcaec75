package localkafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Versions of the artefacts from Maven Central. log4j-slf4j-impl is the binding for
// slf4j 1.7, which Kafka uses.
const (
	kafkaVersion = "4.2.0"
	log4jVersion = "2.25.3"
)

// ErrNoJava and ErrNoMaven mean that a program is missing on this machine.
var (
	ErrNoJava  = errors.New("there is no java on the PATH; Kafka needs Java 17 or later (Debian: apt-get install openjdk-17-jre-headless; macOS: brew install openjdk@17)")
	ErrNoMaven = errors.New("there is no mvn on the PATH to fetch Kafka with (Debian: apt-get install maven; macOS: brew install maven)")
)

const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>oona</groupId>
  <artifactId>jars</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>%s</artifactId>
      <version>` + kafkaVersion + `</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>` + log4jVersion + `</version>
    </dependency>
  </dependencies>
</project>
`

// DefaultCache returns the default of Options.Cache.
func DefaultCache() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	return filepath.Join(cache, "oona", "kafka"), nil
}

// findJava returns the path of java.
func findJava() (string, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return "", ErrNoJava
	}
	return java, nil
}

// The artefact of the brokers.
const kafka = "kafka_2.13"

// Jars returns the directory with the jars of an artefact of org.apache.kafka, such as
// kafka-streams, and of its dependencies. If they are not in cache, it fetches them.
func Jars(ctx context.Context, cache, artefact string) (lib string, err error) {
	lib = filepath.Join(cache, artefact+"-"+kafkaVersion+"-"+log4jVersion)
	if _, err := os.Stat(lib); err == nil {
		return lib, nil
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", ErrNoMaven
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("make the cache of Kafka's jars: %w", err)
	}
	work, err := os.MkdirTemp(cache, "fetch-") // an incomplete download must not have the final name
	if err != nil {
		return "", fmt.Errorf("make a directory to fetch Kafka into: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), fmt.Appendf(nil, pom, artefact), 0o644); err != nil {
		return "", fmt.Errorf("write the pom: %w", err)
	}
	cmd := exec.CommandContext(ctx, mvn, "-B", "-q", "dependency:copy-dependencies", "-DoutputDirectory=lib", "-DincludeScope=runtime")
	cmd.Dir = work
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch %s %s with Maven: %w\n%s", artefact, kafkaVersion, err, bytes.TrimSpace(output))
	}
	if err := os.Rename(filepath.Join(work, "lib"), lib); err != nil {
		if _, missing := os.Stat(lib); missing != nil { // otherwise another process has fetched them
			return "", fmt.Errorf("keep Kafka's jars: %w", err)
		}
	}
	return lib, nil
}
