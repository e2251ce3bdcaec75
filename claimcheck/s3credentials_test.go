package claimcheck_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/claimcheck"
	"github.com/morphogenetic/oona/claimcheck/claimchecktest"
	"github.com/morphogenetic/oona/internal/secret"
	"github.com/morphogenetic/oona/internal/tlsfiles/tlstest"
)

// withoutAWS removes all settings of the AWS SDK, and what it finds on this machine.
func withoutAWS(t *testing.T) {
	t.Helper()
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "") // restores it at the end
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	absent := filepath.Join(t.TempDir(), "absent")
	t.Setenv("AWS_CONFIG_FILE", absent)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", absent)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

// sessions starts an S3 server, and records the session tokens of its requests in the
// order in which they first come.
type sessions struct {
	claimchecktest.Server
	mu     sync.Mutex
	tokens []string
}

func startSessions(t *testing.T) *sessions {
	t.Helper()
	s := &sessions{}
	s.Server = startEmbedded(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			if token := r.Header.Get("X-Amz-Security-Token"); !slices.Contains(s.tokens, token) {
				s.tokens = append(s.tokens, token)
			}
			s.mu.Unlock()
			next.ServeHTTP(w, r)
		})
	})
	return s
}

func (s *sessions) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.tokens)
}

// open returns a store on the server with the credentials of the chain.
func (s *sessions) open(t *testing.T) *claimcheck.Store {
	t.Helper()
	store, err := claimcheck.OpenS3(claimcheck.S3{Endpoint: s.URL, Region: "us-east-1", PathStyle: true}, bucket, limit)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Credentials that do not expire are looked up again within a minute.
func TestCredentialsWithoutExpiry(t *testing.T) {
	for name, set := range map[string]func(t *testing.T, id string){
		"environment": func(t *testing.T, id string) {
			t.Setenv("AWS_ACCESS_KEY_ID", id)
			t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
		},
		"shared credentials file": func(t *testing.T, id string) {
			file := filepath.Join(os.TempDir(), "credentials")
			write(t, file, "[trainer]\naws_access_key_id = "+id+"\naws_secret_access_key = s\n")
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
			t.Setenv("AWS_PROFILE", "trainer")
		},
	} {
		t.Run(name, func(t *testing.T) {
			withoutAWS(t)
			t.Setenv("TMPDIR", t.TempDir())
			chain := claimcheck.Chain("us-east-1")
			for _, id := range []string{"one", "two"} {
				set(t, id)
				got, err := chain.Retrieve(t.Context())
				if err != nil || got.AccessKeyID != id {
					t.Errorf("the access key is %s, error %v; want %s", got.AccessKeyID, err, id)
				}
				if !got.CanExpire || time.Until(got.Expires) > time.Minute {
					t.Errorf("the credentials are kept until %v", got.Expires)
				}
			}
		})
	}
}

func TestCredentialsOfTheEnvironment(t *testing.T) {
	withoutAWS(t)
	server := startSessions(t)
	store := server.open(t)
	if err := store.Probe(t.Context(), "ingest-1"); !refusesKey(err) {
		t.Errorf("without any: %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretAccessKey)
	t.Setenv("AWS_SESSION_TOKEN", "session")
	if err := store.Probe(t.Context(), "ingest-1"); err != nil || !slices.Equal(server.seen(), []string{"session"}) {
		t.Errorf("%v, with the sessions %q", err, server.seen())
	}
}

// refusesKey reports whether err says that --s3-access-key-id, or what stands for it,
// must be changed.
func refusesKey(err error) bool {
	wrong, ok := errors.AsType[*oona.FieldError](err)
	return ok && wrong.Field == "--s3-access-key-id" && errors.Is(err, claimcheck.ErrRefused)
}

// issuer gives out the credentials of a server for a short time, with a new session
// each time, to who shows the token.
type issuer struct {
	server *sessions
	token  func(*http.Request) string
	form   string // with expiry, access key, secret and session

	status atomic.Int32 // of its answers; 0: it gives out credentials
	mu     sync.Mutex
	shown  []string
}

const lifetime = 4 * time.Second

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if status := int(i.status.Load()); status != 0 {
		w.WriteHeader(status)
		return
	}
	i.shown = append(i.shown, i.token(r))
	expires := time.Now().Add(lifetime).UTC().Format(time.RFC3339Nano)
	_, _ = fmt.Fprintf(w, i.form, expires, i.server.AccessKeyID, i.server.SecretAccessKey, fmt.Sprintf("session-%d", len(i.shown)))
}

func (i *issuer) tokens() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.shown)
}

const (
	stsForm = `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>` +
		`<Expiration>%s</Expiration><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken>` +
		`</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`
	containerForm = `{"Expiration":%q,"AccessKeyId":%q,"SecretAccessKey":%q,"Token":%q}`
	metadataForm  = `{"Code":"Success","Expiration":%q,"AccessKeyId":%q,"SecretAccessKey":%q,"Token":%q}`
)

// Credentials are renewed before they expire, with the token that is in the file at that time. While
// their issuer does not answer, the last ones are used until they expire. After that the store is
// unavailable, until the issuer answers.
func TestCredentialsThatExpire(t *testing.T) {
	for name, source := range map[string]struct {
		issuer *issuer
		set    func(t *testing.T, url, token string)
	}{
		"web identity": {&issuer{form: stsForm, token: func(r *http.Request) string { return r.FormValue("WebIdentityToken") }}, func(t *testing.T, url, token string) {
			t.Setenv("AWS_ENDPOINT_URL_STS", url)
			t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/oona")
			t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", token)
		}},
		"container": {&issuer{form: containerForm, token: func(r *http.Request) string { return r.Header.Get("Authorization") }}, func(t *testing.T, url, token string) {
			t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url+"/v1/credentials")
			t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			withoutAWS(t)
			server := startSessions(t)
			source.issuer.server = server
			issues := httptest.NewServer(source.issuer)
			defer issues.Close()
			token := filepath.Join(t.TempDir(), "token")
			write(t, token, "token-1")
			source.set(t, issues.URL, token)
			store := server.open(t)
			probe := func() error { return store.Probe(t.Context(), "ingest-1") }
			if err := probe(); err != nil || !slices.Equal(server.seen(), []string{"session-1"}) {
				t.Fatalf("%v, with the sessions %q", err, server.seen())
			}
			write(t, token, "token-2")
			eventually(t, func() bool {
				if err := probe(); err != nil {
					t.Error(err)
				}
				return slices.Contains(source.issuer.tokens(), "token-2")
			})
			source.issuer.status.Store(http.StatusServiceUnavailable)
			eventually(t, func() bool {
				err := probe()
				if err != nil && (!errors.Is(err, claimcheck.ErrUnavailable) || errors.Is(err, claimcheck.ErrRefused)) {
					t.Errorf("while there are no credentials: %v", err)
				}
				return err != nil
			})
			source.issuer.status.Store(http.StatusForbidden)
			if err := probe(); !refusesKey(err) {
				t.Errorf("while they are denied: %v", err)
			}
			source.issuer.status.Store(0)
			if err := probe(); err != nil {
				t.Errorf("after that: %v", err)
			}
			if seen := server.seen(); slices.Contains(seen, "") || len(seen) < 3 {
				t.Errorf("the sessions are %q", seen)
			}
		})
	}
}

func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Minute); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) || t.Failed() {
			t.Fatal("it does not happen")
		}
	}
}

// The role of an EC2 instance is found in its metadata. Where nothing answers, the store
// is refused within seconds, and the error says what is missing.
func TestMetadata(t *testing.T) {
	withoutAWS(t)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "false")
	server := startSessions(t)
	role := &issuer{server: server, form: metadataForm, token: func(r *http.Request) string { return r.Header.Get("X-Aws-Ec2-Metadata-Token") }}
	metadata := http.NewServeMux()
	metadata.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
		_, _ = w.Write([]byte("token-of-imds"))
	})
	metadata.HandleFunc("GET /latest/meta-data/iam/security-credentials/", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("oona")) })
	metadata.Handle("GET /latest/meta-data/iam/security-credentials/oona", role)
	answers := httptest.NewServer(metadata)
	defer answers.Close()
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", answers.URL)
	store := server.open(t)
	eventually(t, func() bool { return store.Probe(t.Context(), "ingest-1") == nil }) // a busy machine may take more than a second to answer
	if tokens := slices.Compact(role.tokens()); !slices.Equal(tokens, []string{"token-of-imds"}) {
		t.Errorf("with the tokens %q", tokens)
	}

	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"+silent.Addr().String())
	began := time.Now()
	if err := server.open(t).Probe(t.Context(), "ingest-1"); !refusesKey(err) {
		t.Errorf("where nothing answers: %v", err)
	}
	if took := time.Since(began); took > 9*time.Second { // other sources have ten seconds, and this one has one
		t.Errorf("that took %v", took)
	}
}

// The settings of the SDK choose credentials, and nothing else: the requests to the store
// are those of a store with an access key.
func TestSettingsOfTheSDK(t *testing.T) {
	withoutAWS(t)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s %s went elsewhere", r.Method, r.URL) }))
	defer elsewhere.Close()
	shared := filepath.Join(t.TempDir(), "config")
	write(t, shared, "[default]\nregion = eu-west-1\nrequest_checksum_calculation = when_required\nendpoint_url = "+elsewhere.URL+"\nmax_attempts = 9\n")
	for name, value := range map[string]string{
		"AWS_CONFIG_FILE":                  shared,
		"AWS_REGION":                       "eu-west-1",
		"AWS_ENDPOINT_URL":                 elsewhere.URL,
		"AWS_ENDPOINT_URL_S3":              elsewhere.URL,
		"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
		"AWS_RESPONSE_CHECKSUM_VALIDATION": "when_supported",
		"AWS_MAX_ATTEMPTS":                 "9",
		"AWS_RETRY_MODE":                   "adaptive",
		"AWS_USE_DUALSTACK_ENDPOINT":       "true",
		"AWS_USE_FIPS_ENDPOINT":            "true",
	} {
		t.Setenv(name, value)
	}
	var puts, refused atomic.Int32
	server := startEmbedded(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.Header.Get("Authorization"), "/us-east-1/s3/") {
				t.Errorf("the signature is for another region: %s", r.Header.Get("Authorization"))
			}
			if !put(r) {
				next.ServeHTTP(w, r)
				return
			}
			puts.Add(1)
			if r.Header.Get("X-Amz-Checksum-Sha256") == "" && r.Header.Get("X-Amz-Checksum-Crc32") == "" {
				t.Errorf("%s %s has no checksum", r.Method, r.URL)
			}
			if refused.Load() > 0 {
				refused.Add(1)
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretAccessKey)
	store := (&sessions{Server: server}).open(t)
	if err := store.Probe(t.Context(), "ingest-1"); err != nil || puts.Load() == 0 {
		t.Errorf("after %d requests: %v", puts.Load(), err)
	}
	refused.Store(1)
	if err := store.Probe(t.Context(), "ingest-1"); !errors.Is(err, claimcheck.ErrUnavailable) || refused.Load() != 4 {
		t.Errorf("after %d attempts, want 3: %v", refused.Load()-1, err)
	}
}

// A CA file and a secret that are replaced are used without a restart.
func TestFilesOfS3Change(t *testing.T) {
	t.Parallel()
	server, authority := startSecure(t, nil)
	other := tlstest.NewAuthority(t, "other")
	config := server.Config(t)
	good, err := os.ReadFile(config.SecretFile)
	if err != nil {
		t.Fatal(err)
	}
	config.CAFile = other.File
	write(t, config.SecretFile, "another secret")
	store, err := claimcheck.OpenS3(config, bucket, limit)
	if err != nil {
		t.Fatal(err)
	}
	wrong, ok := errors.AsType[*oona.FieldError](store.Probe(t.Context(), "ingest-1"))
	if !ok || wrong.Field != "--s3-ca-file" {
		t.Errorf("with another authority: %v", wrong)
	}
	write(t, config.CAFile, string(authority))
	write(t, config.SecretFile, string(good))
	eventually(t, func() bool { return store.Probe(t.Context(), "ingest-1") == nil })
	write(t, config.CAFile, "rubbish")
	write(t, config.SecretFile, "")
	for end := time.Now().Add(secret.Interval + time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		if err := store.Probe(t.Context(), "ingest-1"); err != nil {
			t.Fatalf("with unusable files, whose last good content stays in use: %v", err)
		}
	}
}
