package config

import "regexp"

var (
	// linkedVariables are those that a service link, or what is modelled on one, may
	// set instead of the operator. A variable without which more is exposed, or another
	// database is used, is not among them: there such a value is an error.
	linkedVariables = []string{"DATABASE_HOST", "DATABASE_PORT", "HTTP_PORT", "ADMIN_ADDR"}

	linkValue = regexp.MustCompile(`^(?:tcp|udp|sctp)://(?:\[[0-9A-Fa-f:]+\]|[0-9.]+):[0-9]{1,5}$`)
	linkName  = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(?:_\w+)?$|_PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_PROTO|_PORT|_ADDR)?$`)
)

// dropLinks removes from values what Kubernetes sets in each container of a namespace
// that has a service named "database" or "http", such as
// DATABASE_PORT=tcp://10.96.0.7:5432.
// https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
func (l *loader) dropLinks(values map[string]string) {
	for _, name := range linkedVariables {
		if !isLink(values[name]) {
			continue
		}
		delete(values, name)
		l.links = append(l.links, name)
		l.warn("%s has the form of a Kubernetes service link (tcp://address:port) and is ignored; set enableServiceLinks: false in the pod, or set the variable to what is meant", name)
	}
}

func isLink(value string) bool { return linkValue.MatchString(value) }

// isOfService reports whether Kubernetes sets such a variable for some service.
func isOfService(name, value string) bool { return linkName.MatchString(name) || isLink(value) }
