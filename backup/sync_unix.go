//go:build !windows

package backup

import (
	"errors"
	"fmt"
	"os"
)

// syncDir has the names in a directory survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("keeping the name of the backup: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("keeping the name of the backup: %w", err)
	}
	return nil
}
