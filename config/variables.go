package config

import (
	"reflect"
)

// variables is every variable that Lockwood reads, as text; .env.example explains
// each. Defaults stand here, and meaning in load.go.
type variables struct {
	AuthSecret     string `env:"FOREST_AUTH_SECRET"`
	AuthSecretFile string `env:"FOREST_AUTH_SECRET_FILE"`

	DatabaseURL      string `env:"DATABASE_URL"`
	DatabaseURLFile  string `env:"DATABASE_URL_FILE"`
	DatabaseHost     string `env:"DATABASE_HOST"`
	DatabasePort     string `env:"DATABASE_PORT"`
	DatabaseName     string `env:"DATABASE_NAME"`
	DatabaseUser     string `env:"DATABASE_USER"`
	DatabasePassword string `env:"DATABASE_PASSWORD"`
	DatabasePassFile string `env:"DATABASE_PASSWORD_FILE"`
	DatabaseSchema   string `env:"DATABASE_SCHEMA"     envDefault:"forest"`
	DatabaseSSL      string `env:"DATABASE_SSL"        envDefault:"true"`
	DatabaseSSLCA    string `env:"DATABASE_SSL_CA"`

	HTTPHost   string `env:"HTTP_HOST"`
	HTTPPort   string `env:"HTTP_PORT"   envDefault:"3400"`
	AdminAddr  string `env:"ADMIN_ADDR"  envDefault:"127.0.0.1:3401"`
	DrainGrace string `env:"DRAIN_GRACE" envDefault:"3s"`
	RateLimit  string `env:"RATE_LIMIT"  envDefault:"0"`
	MaxConns   string `env:"HTTP_MAX_CONNECTIONS" envDefault:"1000"`
	MaxMemory  string `env:"HTTP_MAX_MEMORY" envDefault:"64"`
	Proxies    string `env:"TRUSTED_PROXIES"`
	LogLevel   string `env:"LOG_LEVEL"   envDefault:"info"`
	LogFormat  string `env:"LOG_FORMAT"  envDefault:"json"`

	Key          string `env:"FOREST_EXECUTOR_ENCRYPTION_KEY"`
	KeyFile      string `env:"FOREST_EXECUTOR_ENCRYPTION_KEY_FILE"`
	Previous     string `env:"FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS"`
	PreviousFile string `env:"FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS_FILE"`
	AllowWeakKey string `env:"FOREST_EXECUTOR_ALLOW_WEAK_KEY"              envDefault:"false"`
	KeyProvider  string `env:"FOREST_EXECUTOR_KEY_PROVIDER"                envDefault:"envkey://FOREST_EXECUTOR_ENCRYPTION_KEY"`
	PreviousKEKs string `env:"FOREST_EXECUTOR_PREVIOUS_KEY_PROVIDERS"`
	RecoveryKEKs string `env:"FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS"`
	AutoRewrap   string `env:"FOREST_EXECUTOR_AUTO_REWRAP"                 envDefault:"true"`
	MaxAge       string `env:"FOREST_EXECUTOR_DATA_KEY_MAX_AGE"            envDefault:"90d"`
	PluginDir    string `env:"FOREST_EXECUTOR_PLUGIN_DIR"`
	PluginLock   string `env:"FOREST_EXECUTOR_PLUGIN_LOCK"`
	OutageBudget string `env:"FOREST_EXECUTOR_KEY_OUTAGE_BUDGET"           envDefault:"24h"`
	WriteFormat  string `env:"FOREST_EXECUTOR_WRITE_FORMAT"                envDefault:"1"`
	Legacy       string `env:"FOREST_EXECUTOR_LEGACY"`
	Quota        string `env:"FOREST_EXECUTOR_CREDENTIAL_QUOTA"            envDefault:"1000"`
	AllowLocal   string `env:"FOREST_EXECUTOR_ALLOW_LOCAL_TOKEN_ENDPOINTS" envDefault:"false"`
	AllowULA     string `env:"FOREST_EXECUTOR_ALLOW_UNIQUE_LOCAL_TOKEN_ENDPOINTS" envDefault:"false"`
}

// Variables returns the name of every variable that Lockwood reads.
func Variables() []string {
	t := reflect.TypeFor[variables]()
	names := make([]string, 0, t.NumField())
	for field := range t.Fields() {
		names = append(names, field.Tag.Get("env"))
	}
	return names
}
