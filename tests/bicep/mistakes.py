"""One mistake of each class: what is replaced in which file, the rule that must find it, and a piece of the line it names.

Where the finding names another file than the one that was changed, `found_in` says which.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    name: str
    file: str
    old: str
    new: str
    rule: str
    line: str
    found_in: str = ""


M = "bicep/modules/"
MISTAKES = [
    # The language.
    Mistake("a brace is missing", M + "vault.bicep", "module endpoint 'private-endpoint.bicep' = if (private) {", "module endpoint 'private-endpoint.bicep' = if (private {", "syntax", "if (private {"),
    Mistake("a name that is nowhere", M + "vault.bicep", "targetId: vault.id", "targetId: valt.id", "names", "targetId: valt.id"),
    Mistake("a function that is nowhere", M + "network.bicep", "cidrSubnet(addressPrefix, 24, 1)", "cidrSubnetz(addressPrefix, 24, 1)", "names", "cidrSubnetz"),
    Mistake("a type that is not exported", M + "server.bicep", "import { appIdentity }", "import { appIdentities }", "names", "import { appIdentities }"),
    Mistake("a parameter that nothing uses", M + "budget.bicep", "@description('Name of the budget.')", "@description('Idle.')\nparam idle string = ''\n@description('Name of the budget.')", "unused", "param idle"),
    Mistake("a parameter without description", M + "budget.bicep", "@description('Name of the budget.')\n", "", "described", "param name string"),
    Mistake("a secret that anybody may read", M + "vault-events.bicep", "@secure()\nparam webhookSecret string", "param webhookSecret string", "secure", "param webhookSecret"),
    Mistake("a property twice", M + "budget.bicep", "    timeGrain: 'Monthly'", "    timeGrain: 'Monthly'\n    timeGrain: 'Monthly'", "names", "timeGrain: 'Monthly'"),
    Mistake("no comma", M + "budget.bicep", "  name: name\n  properties: {\n    category", "  name: name properties: {\n    category", "syntax", "name: name properties"),
    Mistake("a name that comes too late", M + "storage.bicep", "  name: container\n", "  name: '${container}${account.properties.primaryEndpoints.blob}'\n", "start", "primaryEndpoints.blob}'"),
    # Resource types.
    Mistake("a resource type that is not", M + "redis.bicep", "'Microsoft.Cache/redisEnterprise@2025-07-01'", "'Microsoft.Cache/redisEnterprize@2025-07-01'", "type", "resource cache"),
    Mistake("an API version that is not", M + "redis.bicep", "'Microsoft.Cache/redisEnterprise@2025-07-01'", "'Microsoft.Cache/redisEnterprise@2031-01-01'", "api-version", "resource cache"),
    Mistake("a misspelt property", M + "storage.bicep", "allowSharedKeyAccess: false", "allowSharedKeyAcces: false", "property", "allowSharedKeyAcces: false"),
    Mistake("a misspelt property deep in a variable", M + "server.bicep", "  webSocketsEnabled: true", "  webSocketEnabled: true", "property", "webSocketEnabled: true"),
    Mistake("a required property is missing", M + "redis.bicep", "    publicNetworkAccess: private ? 'Disabled' : 'Enabled'\n", "", "required", "  properties: {"),
    Mistake("a property that Azure sets", M + "vault.bicep", "    enableRbacAuthorization: true", "    enableRbacAuthorization: true\n    hsmPoolResourceId: 'x'", "read-only", "hsmPoolResourceId"),
    Mistake("a value that is none of those there are", M + "database.bicep", "mode: zoneRedundant ? 'ZoneRedundant'", "mode: zoneRedundant ? 'ZoneRedundent'", "literal", "ZoneRedundent"),
    Mistake("a value of the wrong kind", M + "redis.bicep", "port: 10000", "port: '10000'", "value", "port: '10000'"),
    Mistake("a parameter of the wrong kind for its place", M + "telemetry.bicep", "retentionInDays: retentionDays", "retentionInDays: prefix", "value", "retentionInDays: prefix"),
    Mistake("a bad value that comes through a parameter", "bicep/dev.bicepparam", "param serverSku = 'B1'", "param serverSku = 'B1'\nparam redisSku = 'Balanced_B0'\nparam databaseVersion = '12.5'", "parameters", "module database", "bicep/main.bicep"),
    Mistake("a name that its type does not take", "bicep/prod.bicepparam", "param project = 'colloquy'", "param project = 'Colloquy'", "value", "  name: name", M + "storage.bicep"),
    Mistake("a child below the wrong parent", M + "redis.bicep", "  parent: database\n", "  parent: cache\n", "nesting", "  parent: cache"),
    Mistake("a resource where its type cannot be", "bicep/main.bicep", "module identity 'modules/identity.bicep'", "resource stray 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {\n  name: 'stray'\n  location: location\n  tags: tags\n}\n\nmodule identity 'modules/identity.bicep'", "nesting", "resource stray"),
    Mistake("a property that a resource does not have", M + "storage.bicep", "primaryEndpoints.blob", "primaryEndpoint.blob", "property", "primaryEndpoint.blob"),
    Mistake("a member of a dictionary's items misspelt", M + "budget.bicep", "contactEmails: emailAddresses", "contactMails: emailAddresses", "property", "contactMails"),
    # Between files.
    Mistake("a module that is not there", "bicep/main.bicep", "'modules/budget.bicep'", "'modules/budgets.bicep'", "modules", "module budget"),
    Mistake("a module's parameter is missing", "bicep/main.bicep", "    amount: budgetAmount\n", "", "parameters", "module budget"),
    Mistake("a module has no such parameter", "bicep/main.bicep", "    amount: budgetAmount\n", "    amount: budgetAmount\n    amounts: 1\n", "parameters", "amounts: 1"),
    Mistake("a module's parameter is of another kind", "bicep/main.bicep", "    amount: budgetAmount\n", "    amount: budgetStart\n", "parameters", "amount: budgetStart"),
    Mistake("a module has no such output", "bicep/main.bicep", "vault.outputs.uri", "vault.outputs.url", "outputs", "vault.outputs.url"),
    Mistake("a type that is nowhere", M + "models.bicep", "param deployments modelDeployment[]", "param deployments modelDeploiment[]", "names", "modelDeploiment[]"),
    Mistake("an object that is not of its type", "bicep/prod.bicepparam", "    version: '2025-11-13'\n", "", "parameters", "param modelDeployments"),
    Mistake("a value that its type does not name", "bicep/prod.bicepparam", "sku: 'GlobalStandard'", "sku: 'Global'", "parameters", "param modelDeployments"),
    Mistake("an output that is not of its type", M + "identity.bicep", "  clientId: server.properties.clientId\n", "", "outputs", "output server appIdentity"),
    Mistake("a module without its scope", "bicep/main.bicep", "module budget 'modules/budget.bicep' = {\n  scope: group\n", "module budget 'modules/budget.bicep' = {\n", "nesting", "module budget"),
    Mistake("what is not deployed is asked for", "bicep/main.bicep", "redisId: redis ? cache!.outputs.id : ''", "redisId: cache!.outputs.id", "condition", "redisId: cache!.outputs.id"),
    Mistake("a parameter file lacks one", "bicep/prod.bicepparam", "param budgetAmount = 2500\n", "", "parameters", "// Production."),
    Mistake("a parameter file has one too many", "bicep/prod.bicepparam", "param budgetAmount = 2500\n", "param budgetAmount = 2500\nparam budgetAmounts = 1\n", "parameters", "budgetAmounts"),
    Mistake("a parameter file has another kind", "bicep/prod.bicepparam", "param budgetAmount = 2500", "param budgetAmount = '2500'", "parameters", "budgetAmount = '2500'"),
    Mistake("a parameter beyond its limits", "bicep/prod.bicepparam", "param handlersAlwaysReady = 1", "param handlersAlwaysReady = 1\nparam handlersPoolSize = 30", "parameters", "handlersPoolSize = 30"),
    # Our own.
    Mistake("public access in prod", M + "vault.bicep", "publicNetworkAccess: private ? 'Disabled' : 'Enabled'", "publicNetworkAccess: 'Enabled'", "private", "publicNetworkAccess: 'Enabled'"),
    Mistake("no private endpoint", M + "redis.bicep", "groupId: 'redisEnterprise'", "groupId: 'redis'", "private", "resource cache"),
    Mistake("prod without its network", "bicep/prod.bicepparam", "param privateNetwork = true", "param privateNetwork = false", "private", "param privateNetwork = false"),
    Mistake("an app that anybody reaches past Front Door", M + "function-app.bicep", "empty(frontDoorId) ? 'Allow' : 'Deny'", "'Allow'", "private", "ipSecurityRestrictionsDefaultAction: 'Allow'"),
    Mistake("a resource without tags", M + "telemetry.bicep", "  name: '${prefix}-insights'\n  location: location\n  tags: tags\n", "  name: '${prefix}-insights'\n  location: location\n", "tags", "resource insights"),
    Mistake("a resource without diagnostics", M + "database.bicep", "  scope: server\n  name: 'to-workspace'\n  properties: {\n    workspaceId: workspaceId\n", "  scope: server\n  name: 'to-workspace'\n  properties: {\n", "diagnostics", "resource server"),
    Mistake("a category of logs that is not", M + "function-app.bicep", "FunctionAppLogs", "FunctionLogs", "diagnostics", "  properties: {"),
    Mistake("a parameter of PostgreSQL that is not", M + "database.bicep", "pgbouncer.enabled", "pgbouncer.enable", "database", "resource configuration"),
    Mistake("a service tag that is not", M + "network-rules.bicep", "'AzureActiveDirectory'", "'AzureEntra'", "network", "securityRules: ["),
    Mistake("a name of one's own past Front Door", "bicep/main.bicep", "frontDoor ? '' : serverDomain", "'api.example.com'", "private", "resource binding", M + "custom-domain.bicep"),
    Mistake("a role that nobody knows", M + "models.bicep", "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd", "5e0bd9bd-7b93-4f28-af87-19fc36ad61be", "roles", "roleDefinitionId"),
    Mistake("a role on the whole group", M + "models.bicep", "  scope: account\n  name: guid(account.id", "  name: guid(account.id", "roles", "resource users"),
    Mistake("Secrets Officer", M + "vault.bicep", "4633458b-17de-408a-b874-0445c86b69e6", "b86a8fe4-44ce-4948-aee5-eccb2c155cd7", "roles", "roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultSecretsUser)"),
    Mistake("developers in prod", "bicep/prod.bicepparam", "param privateNetwork = true", "param developersGroupId = '22222222-2222-2222-2222-222222222222'\nparam privateNetwork = true", "roles", "resource secretReaders", M + "vault.bicep"),
    Mistake("affinity", M + "server.bicep", "    clientAffinityEnabled: false", "    clientAffinityEnabled: true", "server", "clientAffinityEnabled: true"),
    Mistake("auto-heal left on", M + "server.bicep", "WEBSITE_PROACTIVE_AUTOHEAL_ENABLED: 'false'", "WEBSITE_PROACTIVE_AUTOHEAL_ENABLED: 'true'", "server", "    siteConfig: union(siteConfig, {"),
    Mistake("TLS 1.0", M + "function-app.bicep", "      minTlsVersion: '1.2'", "      minTlsVersion: '1.0'", "handlers", "minTlsVersion: '1.0'"),
    Mistake("a setting that swaps and must not", "bicep/main.bicep", "      'QUEUE_JOBS'\n", "", "server", "resource sticky", M + "server.bicep"),
    Mistake("a setting of the slot that goes over in a swap", "bicep/main.bicep", "      'BLOB_CONTAINER'\n", "", "server", "resource staging", M + "server.bicep"),
    Mistake("a slot on production's database", "bicep/main.bicep", "/colloquy_slot'\n      QUEUE", "/colloquy'\n      QUEUE", "server", "resource staging", M + "server.bicep"),
    Mistake("a database that can lose a zone", "bicep/prod.bicepparam", "param databaseZoneRedundant = true", "param databaseZoneRedundant = false", "database", "mode: zoneRedundant", M + "database.bicep"),
    Mistake("passwords", M + "database.bicep", "passwordAuth: 'Disabled'", "passwordAuth: 'Enabled'", "database", "passwordAuth: 'Enabled'"),
    Mistake("a vault that can be purged in prod", "bicep/prod.bicepparam", "param purgeProtection = true", "param purgeProtection = false", "vault", "enablePurgeProtection", M + "vault.bicep"),
    Mistake("telemetry too short", M + "telemetry.bicep", "    RetentionInDays: retentionDays", "    RetentionInDays: 30", "telemetry", "RetentionInDays: 30"),
    Mistake("a port forgotten", M + "network-rules.bicep", "            '5432'\n            '6432'\n", "            '5432'\n", "network", "securityRules: ["),
    Mistake("a rule without ports", M + "network-rules.bicep", "          sourcePortRange: '*'\n", "", "network", "securityRules: ["),
    Mistake("a subnet without addresses", M + "network.bicep", "          addressPrefix: subnets.database\n", "", "network", "subnets: concat(["),
    Mistake("two rules of one priority", M + "network-rules.bicep", "          priority: 110\n          direction: 'Outbound'", "          priority: 100\n          direction: 'Outbound'", "network", "securityRules: ["),
    Mistake("a subnet that is open", M + "network.bicep", "          networkSecurityGroup: {\n            id: rules.outputs.database\n          }\n", "", "network", "subnets: concat(["),
    Mistake("a subnet for nobody", M + "network.bicep", "'Microsoft.App/environments'", "'Microsoft.Web/serverFarms'", "network", "subnets: concat(["),
    Mistake("scaling in before the drain", M + "scaling.bicep", "cooldown: 'PT10M'", "cooldown: 'PT1M'", "scaling", "profiles: ["),
    Mistake("other bounds of scaling", "bicep/prod.bicepparam", "param serverInstances = 2", "param serverInstances = 1", "scaling", "profiles: [", M + "scaling.bicep"),
    Mistake("more connections than the server takes", "bicep/dev.bicepparam", "param databaseConnections = 844", "param databaseConnections = 35", "connections", "databaseConnections = 35"),
    Mistake("more than PgBouncer may open", "bicep/prod.bicepparam", "param databaseConnections = 1703", "param databaseConnections = 1703\nparam databasePoolSize = 600", "connections", "databasePoolSize = 600"),
    Mistake("a secret in an output", M + "storage.bicep", "output name string = account.name", "output name string = account.listKeys().keys[0].value", "secret-output", "output name"),
    Mistake("a secure parameter in an output", M + "alerts.bicep", "output mailGroupId string = mail.id", "output mailGroupId string = '${mail.id}${chatWebhook}'", "secret-output", "output mailGroupId"),
    Mistake("a setting that no program reads", "bicep/main.bicep", "  DB_AUTH_MODE: 'entra'", "  DB_AUTH_MODE: 'entra'\n  DB_AUTH_MODUS: 'entra'", "settings", "resource app", M + "function-app.bicep"),
    Mistake("a setting that was forgotten", "bicep/settings.json", '    "TURNS_MAX",\n', "", "settings", "// Small and open", "bicep/dev.bicepparam"),
    Mistake("a setting that is no more", "bicep/settings.json", '    "TURNS_MAX",\n', '    "TURNS_MAX",\n    "TURNS_MIN",\n', "settings", "{"),
    Mistake("a source's secret is missing", "bicep/staging.bicepparam", "  WEBHOOK_SECRET_STRIPE: 'stripe-webhook'\n", "", "settings", "resource app", M + "function-app.bicep"),
    Mistake("a source's secret under another name", "bicep/staging.bicepparam", "'stripe-webhook'", "'webhook-stripe'", "settings", "resource app", M + "function-app.bicep"),
    Mistake("a secret in the open", "bicep/staging.bicepparam", "  CONSUMER_URL:", "  WEBHOOK_SECRET_STRIPE__NEW: 'open'\n  CONSUMER_URL:", "settings", "resource app", M + "function-app.bicep"),
    Mistake("a reference without its slash", "bicep/main.bicep", "var serverReferences = toObject(items(serverSecretNames), item => item.key, item => '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/${project}-${item.value}/)')", "var serverReferences = toObject(items(serverSecretNames), item => item.key, item => '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/${project}-${item.value})')", "settings", "resource app", M + "server.bicep"),
    Mistake("a threshold that is not the table's", "bicep/signals.json", '"at": 1000,', '"at": 1001,', "signals", "{"),
    Mistake("an alert left out", M + "alerts.bicep", "var ours = filter(levels, item => contains(item.signal.source, 'only'))", "var ours = filter(levels, item => contains(item.signal.source, 'only') && item.name != 'pool-critical')", "alerts", "resource queries"),
    Mistake("an alert of another severity", M + "alerts.bicep", "    severity: item.level.severity\n    scopes: [\n      workspaceId", "    severity: 3\n    scopes: [\n      workspaceId", "alerts", "resource queries"),
    Mistake("a budget that tells too late", M + "budget.bicep", "threshold: 80", "threshold: 95", "budget", "resource budget"),
    Mistake("a misspelt variable of the environment", "bicep/prod.bicepparam", "'COLLOQUY_PAGE_WEBHOOK'", "'COLLOQUY_PAGE_WEBHOK'", "environment", "COLLOQUY_PAGE_WEBHOK"),
    Mistake("a decorator that is not", M + "budget.bicep", "@minValue(1)\n", "@minVal(1)\n", "names", "@minVal(1)"),
    Mistake("a decorator twice", M + "budget.bicep", "@minValue(1)\n", "@minValue(1)\n@minValue(1)\n", "names", "@minValue(1)"),
    Mistake("a parameter file of another environment", "bicep/staging.bicepparam", "param environmentName = 'staging'", "param environmentName = 'dev'", "environment", "environmentName = 'dev'"),
]  # fmt: skip
