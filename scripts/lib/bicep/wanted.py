"""The tables that the rules hold resources against."""

import re

# Built-in roles that may be given, by what Azure calls them. Whatever else stands in a role assignment is a mistake, or
# is to be thought about and added here.
ROLES = {
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "Storage Blob Data Owner",
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor",
    "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1": "Storage Blob Data Reader",
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": "Storage Queue Data Contributor",
    "8a0f0c08-91a1-4084-bc3d-661d67233fed": "Storage Queue Data Message Processor",
    "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a": "Storage Queue Data Message Sender",
    "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3": "Storage Table Data Contributor",
    "4633458b-17de-408a-b874-0445c86b69e6": "Key Vault Secrets User",
    "00482a5a-887f-4fb3-b363-3b7fe8e74483": "Key Vault Administrator",
    "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd": "Cognitive Services OpenAI User",
    "3913510d-42f4-4e42-8a64-420c390055eb": "Monitoring Metrics Publisher",
}
OFFICER = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7"
ADMINISTRATOR = "00482a5a-887f-4fb3-b363-3b7fe8e74483"

# Types without tags of their own: parts of something that has them, or nothing that costs.
UNTAGGED = {"Microsoft.Authorization/roleAssignments", "Microsoft.Insights/diagnosticSettings", "Microsoft.Consumption/budgets"}
TAGS = ("owner", "environment", "project")
TAGGED_CHILDREN = {"Microsoft.Web/sites/slots", "Microsoft.Cdn/profiles/afdEndpoints"}
# Types that Azure takes diagnostics of, and that must send them.
DIAGNOSED = {
    "Microsoft.KeyVault/vaults", "Microsoft.Storage/storageAccounts", "Microsoft.Storage/storageAccounts/blobServices",
    "Microsoft.Storage/storageAccounts/queueServices", "Microsoft.DBforPostgreSQL/flexibleServers", "Microsoft.Cache/redisEnterprise",
    "Microsoft.Cache/redisEnterprise/databases", "Microsoft.CognitiveServices/accounts", "Microsoft.Web/sites", "Microsoft.Web/sites/slots",
    "Microsoft.Cdn/profiles", "Microsoft.Network/virtualNetworks", "Microsoft.Network/networkSecurityGroups", "Microsoft.Network/bastionHosts",
    "Microsoft.OperationalInsights/workspaces", "Microsoft.EventGrid/systemTopics",
}  # fmt: skip
# Types that hold data: closed to the internet, and which part of each an endpoint leads to.
CLOSED = {
    "Microsoft.KeyVault/vaults": ["vault"],
    "Microsoft.Storage/storageAccounts": ["blob"],
    "Microsoft.Cache/redisEnterprise": ["redisEnterprise"],
    "Microsoft.CognitiveServices/accounts": ["account"],
}
# What App Service and Functions themselves read.
PLATFORM_SETTINGS = {
    "AzureWebJobsStorage__tableServiceUri", "SCM_DO_BUILD_DURING_DEPLOYMENT", "WEBSITES_CONTAINER_START_TIME_LIMIT",
    "WEBSITES_CONTAINER_STOP_TIME_LIMIT", "WEBSITE_HEALTHCHECK_MAXPINGFAILURES", "WEBSITE_PROACTIVE_AUTOHEAL_ENABLED",
    "WEBSITE_RUN_FROM_PACKAGE", "WEBSITE_SWAP_WARMUP_PING_PATH", "WEBSITE_SWAP_WARMUP_PING_STATUSES", "WEBSITE_WARMUP_PATH",
    "WEBSITE_WARMUP_STATUSES",
}  # fmt: skip
CLIENTS_OF_THE_POOLER = 5000
# Names that Azure's schemas leave open and Azure itself does not.
LOG_GROUPS = {"allLogs", "audit"}
LOG_CATEGORIES = {"FunctionAppLogs", "AppServiceConsoleLogs", "AppServicePlatformLogs", "AppServiceIPSecAuditLogs", "AppServiceAuditLogs"}
METRIC_CATEGORIES = {"AllMetrics", "Transaction"}
SERVICE_TAGS = {"*", "Internet", "Storage", "AzureActiveDirectory", "VirtualNetwork"}
ZONES = re.compile(
    r"privatelink\.(blob|queue|table)\.core\.windows\.net|privatelink\.vaultcore\.azure\.net|privatelink\.redis\.azure\.net|"
    r"privatelink\.(cognitiveservices|openai)\.azure\.com|privatelink\.services\.ai\.azure\.com|[\w.-]+\.postgres\.database\.azure\.com"
)
DATABASE_PARAMETERS = {
    "client_connection_check_interval": "5000", "require_secure_transport": "ON", "azure.extensions": None, "pgbouncer.enabled": "true",
    "pgbouncer.pool_mode": "transaction", "pgbouncer.default_pool_size": None, "pgbouncer.min_pool_size": "10", "pgbouncer.server_idle_timeout": "600",
}  # fmt: skip
DELEGATED = {"Microsoft.Web/serverFarms", "Microsoft.App/environments", "Microsoft.DBforPostgreSQL/flexibleServers"}
SECRET_WORDS = re.compile(r"password|secret|accesskey|primarykey|secondarykey|connectionstring|token|sas$", re.I)
LISTS = re.compile(r"^list[A-Z]|^getSecret$")

# By the path below `properties` and the value that it must have (K2, K4).
SITE = {"httpsOnly": True, "siteConfig.minTlsVersion": ("1.2", "1.3"), "siteConfig.ftpsState": "Disabled", "siteConfig.remoteDebuggingEnabled": False}
SERVER = SITE | {
    "clientAffinityEnabled": False, "siteConfig.alwaysOn": True, "siteConfig.webSocketsEnabled": True, "siteConfig.use32BitWorkerProcess": False,
    "siteConfig.healthCheckPath": "/health/ready",
}  # fmt: skip
SERVER_SETTINGS = {"WEBSITES_CONTAINER_STOP_TIME_LIMIT": "120", "WEBSITE_PROACTIVE_AUTOHEAL_ENABLED": "false"}
STICKY = {"APP_ENV", "DATABASE_URL", "APPLICATIONINSIGHTS_CONNECTION_STRING", "QUEUE_EVENTS", "QUEUE_JOBS", "QUEUE_CALLBACKS", "QUEUE_USAGE"}
VAULT = {"enableRbacAuthorization": True, "enableSoftDelete": True, "softDeleteRetentionInDays": 90}
VAULT_IN_PROD = {"enablePurgeProtection": True}
STORAGE = {"allowSharedKeyAccess": False, "allowBlobPublicAccess": False, "supportsHttpsTrafficOnly": True, "minimumTlsVersion": "TLS1_2"}
DATABASE = {"authConfig.activeDirectoryAuth": "Enabled", "authConfig.passwordAuth": "Disabled", "storage.autoGrow": "Enabled"}
DATABASE_IN_PROD = {
    "version": "17", "storage.storageSizeGB": 128, "backup.backupRetentionDays": 35, "backup.geoRedundantBackup": "Enabled",
    "highAvailability.mode": "ZoneRedundant",
}  # fmt: skip
REDIS = {"port": 10000, "clientProtocol": "Encrypted", "accessKeysAuthentication": "Disabled", "clusteringPolicy": "NoCluster"}
MODELS = {"disableLocalAuth": True}
TELEMETRY = {"DisableLocalAuth": True, "RetentionInDays": 90}
HANDLERS = {"functionAppConfig.runtime.name": "custom", "functionAppConfig.deployment.storage.authentication.type": "UserAssignedIdentity"}
