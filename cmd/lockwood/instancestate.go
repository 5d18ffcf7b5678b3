package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/lockwood-kms/lockwood/core"
	"github.com/lockwood-kms/lockwood/core/keyring"
)

// inOutage is in the state of an instance that serves while its key provider does not
// answer as it should.
const inOutage = ", outage since "

// instanceState is what an instance tells the others of its ring: the state in a word and,
// while it bridges an outage of the key provider, since when and until when it can.
func instanceState(s *keyring.Status, now time.Time) core.Text {
	if s.OutageSince.IsZero() || s.Err != nil {
		return core.Text(s.State)
	}
	return core.Text(fmt.Sprintf("%s%s%s, data keys stay until %s", s.State, inOutage,
		s.OutageSince.UTC().Format(time.RFC3339), now.Add(s.OutageBudgetLeft).UTC().Format(time.RFC3339)))
}

// outages names the live instances that see an outage of their key provider, which this
// command may not see.
func (s *keyStatus) outages() (problems []string) {
	for _, i := range s.Instances {
		if i.Live && strings.Contains(string(i.State), inOutage) {
			problems = append(problems, fmt.Sprintf("instance %s on %s says that its key provider does not answer as it should: %s", i.ID, i.Hostname, i.State))
		}
	}
	return problems
}
