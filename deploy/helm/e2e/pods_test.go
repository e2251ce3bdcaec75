package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// adminPorts are those of the chart.
var adminPorts = map[string]string{"ingest": "9101", "aggregate": "9102", "exporter": "9103"}

// pods returns the pods of a component that are not about to end.
func (w *world) pods(ctx context.Context, component string) (pods []corev1.Pod, err error) {
	list, err := w.client.CoreV1().Pods(w.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=" + component})
	if err != nil {
		return nil, err
	}
	for _, pod := range list.Items {
		if pod.DeletionTimestamp == nil {
			pods = append(pods, pod)
		}
	}
	return pods, nil
}

func ready(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// metrics are the families of a worker's metrics.
type metrics map[string]*dto.MetricFamily

func (w *world) scrape(ctx context.Context, pod *corev1.Pod) (metrics, error) {
	url := "https://" + net.JoinHostPort(pod.Status.PodIP, adminPorts[pod.Labels["app.kubernetes.io/component"]]) + "/metrics"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	scraper := &http.Client{Timeout: 2 * time.Second, Transport: authorized{&http.Transport{DisableKeepAlives: true, TLSClientConfig: w.tls}}}
	response, err := scraper.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(bytes.NewReader(body))
}

// values returns the values of a family by the labels of each series, as text.
func (m metrics) values(family string) map[string]float64 {
	values := make(map[string]float64)
	if m[family] == nil {
		return values
	}
	for _, metric := range m[family].Metric {
		var labels strings.Builder
		for _, label := range metric.Label {
			fmt.Fprintf(&labels, "%s=%s,", label.GetName(), label.GetValue())
		}
		values[labels.String()] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
	}
	return values
}

// sum returns the sum of a family over all pods of a component, and its number of series.
func (w *world) sum(ctx context.Context, component, family string) (sum float64, series int, err error) {
	pods, err := w.pods(ctx, component)
	if err != nil {
		return 0, 0, err
	}
	for i := range pods {
		m, err := w.scrape(ctx, &pods[i])
		if err != nil {
			return 0, 0, err
		}
		for _, value := range m.values(family) {
			sum += value
			series++
		}
	}
	return sum, series, nil
}

// serve checks that a component has this number of pods, that all are ready and run a
// version, and that none was started again.
func (w *world) serve(ctx context.Context, component string, replicas int, tag string) error {
	pods, err := w.pods(ctx, component)
	if err != nil {
		return err
	}
	var errs []error
	if len(pods) != replicas {
		errs = append(errs, fmt.Errorf("%d pods of %s, want %d", len(pods), component, replicas))
	}
	for i := range pods {
		pod := &pods[i]
		if !ready(pod) {
			errs = append(errs, fmt.Errorf("%s is not ready", pod.Name))
			continue
		}
		if restarts := pod.Status.ContainerStatuses[0].RestartCount; restarts > 0 {
			errs = append(errs, fmt.Errorf("%s was started again %d times", pod.Name, restarts))
		}
		m, err := w.scrape(ctx, pod)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if says := fmt.Sprint(m.values("oona_build_info")); !strings.Contains(says, "version="+tag+".0.0,") {
			errs = append(errs, fmt.Errorf("%s runs %s, want %s", pod.Name, says, tag))
		}
	}
	return errors.Join(errs...)
}

// works checks all components.
func (w *world) works(ctx context.Context, ingest, aggregate, exporter string) error {
	return errors.Join(
		w.serve(ctx, "ingest", 2, ingest),
		w.serve(ctx, "aggregate", 3, aggregate),
		w.serve(ctx, "exporter", 2, exporter),
		w.owned(ctx),
	)
}

// owned checks that each partition is read by one aggregator.
func (w *world) owned(ctx context.Context) error {
	_, series, err := w.sum(ctx, "aggregate", "oona_aggregate_lag_records")
	if err == nil && series != w.partitions {
		err = fmt.Errorf("%d partitions are read, want %d", series, w.partitions)
	}
	return err
}
