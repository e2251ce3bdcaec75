package kubelet

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// environment returns the variables of a container, as NAME=value.
func (p *pod) environment(ctx context.Context, c *corev1.Container) (map[string]string, error) {
	env := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME": p.is.Name}
	for _, from := range c.EnvFrom {
		values, err := p.variablesFrom(ctx, from)
		if err != nil {
			return nil, err
		}
		for name, value := range values {
			env[from.Prefix+name] = value
		}
	}
	for _, v := range c.Env {
		if v.ValueFrom == nil {
			env[v.Name] = expand(v.Value, env)
			continue
		}
		value, found, err := p.valueFrom(ctx, c, v.ValueFrom)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", v.Name, err)
		}
		if found {
			env[v.Name] = value
		}
	}
	return env, nil
}

func (p *pod) variablesFrom(ctx context.Context, from corev1.EnvFromSource) (map[string]string, error) {
	switch {
	case from.SecretRef != nil:
		data, err := p.secret(ctx, from.SecretRef.Name, from.SecretRef.Optional)
		return texts(data), err
	case from.ConfigMapRef != nil:
		data, err := p.configMap(ctx, from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
		return texts(data), err
	}
	return nil, nil
}

func texts(data map[string][]byte) map[string]string {
	values := make(map[string]string)
	for key, value := range data {
		values[key] = string(value)
	}
	return values
}

func (p *pod) valueFrom(ctx context.Context, c *corev1.Container, from *corev1.EnvVarSource) (value string, found bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err := p.field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err := resourceField(c, from.ResourceFieldRef)
		return value, true, err
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		data, err := p.secret(ctx, ref.Name, ref.Optional)
		if err != nil {
			return "", false, err
		}
		return keyOf(data, "Secret "+ref.Name, ref.Key, ref.Optional)
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		data, err := p.configMap(ctx, ref.Name, ref.Optional)
		if err != nil {
			return "", false, err
		}
		return keyOf(data, "ConfigMap "+ref.Name, ref.Key, ref.Optional)
	}
	return "", false, fmt.Errorf("this source of a value is not supported: %v", from)
}

func keyOf(data map[string][]byte, object, key string, optional *bool) (string, bool, error) {
	value, found := data[key]
	if !found && (optional == nil || !*optional) {
		return "", false, fmt.Errorf("couldn't find key %s in %s", key, object)
	}
	return string(value), found, nil
}

// secret returns the data of a Secret, or nothing if it is optional and does not exist.
func (p *pod) secret(ctx context.Context, name string, optional *bool) (map[string][]byte, error) {
	secret, err := p.kubelet.Client.CoreV1().Secrets(p.is.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && optional != nil && *optional {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s: %w", name, err)
	}
	return secret.Data, nil
}

// configMap returns the data of a ConfigMap, like secret.
func (p *pod) configMap(ctx context.Context, name string, optional *bool) (map[string][]byte, error) {
	object, err := p.kubelet.Client.CoreV1().ConfigMaps(p.is.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && optional != nil && *optional {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s: %w", name, err)
	}
	data := make(map[string][]byte)
	for key, value := range object.Data {
		data[key] = []byte(value)
	}
	for key, value := range object.BinaryData {
		data[key] = value
	}
	return data, nil
}

// field returns a field of the pod for the downward API.
func (p *pod) field(path string) (string, error) {
	if name, key, found := strings.Cut(strings.TrimSuffix(path, "']"), "['"); found {
		switch name {
		case "metadata.labels":
			return p.is.Labels[key], nil
		case "metadata.annotations":
			return p.is.Annotations[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return p.is.Name, nil
	case "metadata.namespace":
		return p.is.Namespace, nil
	case "metadata.uid":
		return string(p.is.UID), nil
	case "spec.nodeName":
		return p.is.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.is.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs":
		return p.address.String(), nil
	case "status.hostIP":
		return p.kubelet.Network.Host().String(), nil
	}
	return "", fmt.Errorf("the field %s is not supported", path)
}

// resourceField returns a request or limit of a container in units of the divisor.
func resourceField(c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	kind, name, _ := strings.Cut(ref.Resource, ".")
	list := map[string]corev1.ResourceList{"limits": c.Resources.Limits, "requests": c.Resources.Requests}[kind]
	amount, found := list[corev1.ResourceName(name)]
	if !found {
		return "", fmt.Errorf("container %s has no %s; a real kubelet would give what the node has", c.Name, ref.Resource)
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	return strconv.FormatInt(int64(math.Ceil(amount.AsApproximateFloat64()/divisor.AsApproximateFloat64())), 10), nil
}

// expand replaces $(NAME) by the variable's value. $$(NAME) is $(NAME), and a name that is
// no variable stays as it is.
func expand(text string, env map[string]string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		switch {
		case strings.HasPrefix(after, "$"):
			out.WriteByte('$')
			text = after[1:]
		case strings.HasPrefix(after, "("):
			name, rest, closed := strings.Cut(after[1:], ")")
			value, known := env[name]
			switch {
			case !closed:
				out.WriteString("$(")
				text = after[1:]
			case known:
				out.WriteString(value)
				text = rest
			default:
				out.WriteString("$(" + name + ")")
				text = rest
			}
		default:
			out.WriteByte('$')
			text = after
		}
	}
}

// expandAll expands each of texts.
func expandAll(texts []string, env map[string]string) (expanded []string) {
	for _, text := range texts {
		expanded = append(expanded, expand(text, env))
	}
	return expanded
}
