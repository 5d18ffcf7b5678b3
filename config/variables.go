package config

import (
	"log/slog"
	"reflect"
)

// variables is every variable that Lockwood reads; .env.example explains each. A field
// is named after that of Config. want completes the error over a value that is not of
// the field's type; what else a value has to fulfil stands where it is used.
type variables struct {
	AuthSecret     string `env:"FOREST_AUTH_SECRET"`
	AuthSecretFile string `env:"FOREST_AUTH_SECRET_FILE"`

	DatabaseURL          string `env:"DATABASE_URL"`
	DatabaseURLFile      string `env:"DATABASE_URL_FILE"`
	DatabaseHost         string `env:"DATABASE_HOST"`
	DatabasePort         uint16 `env:"DATABASE_PORT" want:"a port number, 0 to 65535"`
	DatabaseName         string `env:"DATABASE_NAME"`
	DatabaseUser         string `env:"DATABASE_USER"`
	DatabasePassword     string `env:"DATABASE_PASSWORD"`
	DatabasePasswordFile string `env:"DATABASE_PASSWORD_FILE"`
	DatabaseSchema       string `env:"DATABASE_SCHEMA" envDefault:"forest"`
	DatabaseSSL          string `env:"DATABASE_SSL" envDefault:"true"`
	DatabaseSSLCA        string `env:"DATABASE_SSL_CA"`
	PreparedStatements   string `env:"DATABASE_PREPARED_STATEMENTS" envDefault:"auto"`

	HTTPHost           string     `env:"HTTP_HOST"`
	HTTPPort           uint16     `env:"HTTP_PORT" envDefault:"3400" want:"a port number, 0 to 65535"`
	AdminAddr          string     `env:"ADMIN_ADDR" envDefault:"127.0.0.1:3401"`
	DrainGrace         duration   `env:"DRAIN_GRACE" envDefault:"3s" want:"a duration such as 90s, 30m, 24h or 90d"`
	RateLimit          float64    `env:"RATE_LIMIT" envDefault:"0" want:"requests a second for a user, such as 5 or 0.5, or 0 for no limit"`
	HTTPMaxConnections int        `env:"HTTP_MAX_CONNECTIONS" envDefault:"1000" want:"a whole number"`
	HTTPMaxMemory      int        `env:"HTTP_MAX_MEMORY" envDefault:"64" want:"a whole number of MiB"`
	TrustedProxies     string     `env:"TRUSTED_PROXIES"`
	LogLevel           slog.Level `env:"LOG_LEVEL" envDefault:"info" want:"debug, info, warn or error"`
	LogFormat          string     `env:"LOG_FORMAT" envDefault:"auto"`

	EncryptionKey     string `env:"FOREST_EXECUTOR_ENCRYPTION_KEY"`
	EncryptionKeyFile string `env:"FOREST_EXECUTOR_ENCRYPTION_KEY_FILE"`
	PreviousKeys      string `env:"FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS"`
	PreviousKeysFile  string `env:"FOREST_EXECUTOR_PREVIOUS_ENCRYPTION_KEYS_FILE"`
	AllowWeakKey      bool   `env:"FOREST_EXECUTOR_ALLOW_WEAK_KEY" envDefault:"false" want:"true or false"`

	KeyProvider          string   `env:"FOREST_EXECUTOR_KEY_PROVIDER" envDefault:"envkey://FOREST_EXECUTOR_ENCRYPTION_KEY"`
	PreviousKeyProviders string   `env:"FOREST_EXECUTOR_PREVIOUS_KEY_PROVIDERS"`
	RecoveryKeyProviders string   `env:"FOREST_EXECUTOR_RECOVERY_KEY_PROVIDERS"`
	AutoRewrap           bool     `env:"FOREST_EXECUTOR_AUTO_REWRAP" envDefault:"true" want:"true or false"`
	DataKeyMaxAge        duration `env:"FOREST_EXECUTOR_DATA_KEY_MAX_AGE" envDefault:"90d" want:"a duration such as 90d, or 0 for never"`
	PluginDir            string   `env:"FOREST_EXECUTOR_PLUGIN_DIR"`
	PluginLock           string   `env:"FOREST_EXECUTOR_PLUGIN_LOCK"`
	OutageBudget         duration `env:"FOREST_EXECUTOR_KEY_OUTAGE_BUDGET" envDefault:"24h" want:"a duration such as 90s, 30m, 24h or 90d"`
	StoreID              string   `env:"FOREST_EXECUTOR_STORE_ID"`
	WriteFormat          string   `env:"FOREST_EXECUTOR_WRITE_FORMAT" envDefault:"1"`
	Legacy               string   `env:"FOREST_EXECUTOR_LEGACY"`

	AccessTokens    string `env:"FOREST_EXECUTOR_ACCESS_TOKENS" envDefault:"on"`
	TokenEndpointCA string `env:"FOREST_EXECUTOR_TOKEN_ENDPOINT_CA"`

	GrantTimeout     duration `env:"FOREST_EXECUTOR_GRANT_TIMEOUT" envDefault:"15s" want:"a duration such as 15s"`
	RefreshIdleAfter duration `env:"FOREST_EXECUTOR_REFRESH_IDLE_AFTER" envDefault:"0" want:"a duration such as 30d, or 0 for never"`

	MCPServersFile      string `env:"FOREST_EXECUTOR_MCP_SERVERS_FILE"`
	ForestEnvSecret     string `env:"FOREST_ENV_SECRET"`
	ForestEnvSecretFile string `env:"FOREST_ENV_SECRET_FILE"`
	ForestServerURL     string `env:"FOREST_SERVER_URL" envDefault:"https://api.forestadmin.com"`

	CredentialQuota                int  `env:"FOREST_EXECUTOR_CREDENTIAL_QUOTA" envDefault:"1000" want:"how many credentials a user may have, such as 1000, or 0 for no limit"`
	AllowLocalTokenEndpoints       bool `env:"FOREST_EXECUTOR_ALLOW_LOCAL_TOKEN_ENDPOINTS" envDefault:"false" want:"true or false"`
	AllowUniqueLocalTokenEndpoints bool `env:"FOREST_EXECUTOR_ALLOW_UNIQUE_LOCAL_TOKEN_ENDPOINTS" envDefault:"false" want:"true or false"`
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
