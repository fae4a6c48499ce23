// Small and open: no network of its own, one of everything. What differs between subscriptions comes from the environment.
using 'main.bicep'

param environmentName = 'dev'
param project = 'colloquy'
param location = readEnvironmentVariable('AZURE_LOCATION', 'westeurope')
param owner = readEnvironmentVariable('COLLOQUY_OWNER')
param pipelinePrincipalId = readEnvironmentVariable('COLLOQUY_PIPELINE_PRINCIPAL_ID', '')
param exportPrincipalId = readEnvironmentVariable('COLLOQUY_EXPORT_PRINCIPAL_ID', '')
param eventGridSecret = readEnvironmentVariable('COLLOQUY_EVENT_GRID_SECRET', '')
param breakGlassGroupId = readEnvironmentVariable('COLLOQUY_BREAK_GLASS_GROUP_ID', '')
param databaseAdministratorId = readEnvironmentVariable('COLLOQUY_DATABASE_ADMINISTRATOR_ID')
param databaseAdministratorName = readEnvironmentVariable('COLLOQUY_DATABASE_ADMINISTRATOR_NAME')
param mailAddresses = split(readEnvironmentVariable('COLLOQUY_MAIL_ADDRESSES'), ',')
param chatWebhook = readEnvironmentVariable('COLLOQUY_CHAT_WEBHOOK', '')
param pageWebhook = readEnvironmentVariable('COLLOQUY_PAGE_WEBHOOK', '')
param developersGroupId = readEnvironmentVariable('COLLOQUY_DEVELOPERS_GROUP_ID', '')

param privateNetwork = false
param telemetryDailyGb = 1
param purgeProtection = false

// Burstable: no PgBouncer. max_connections 859, 15 of them reserved.
param databaseSku = 'Standard_B2ms'
param databaseTier = 'Burstable'
param databaseConnections = 844

param storageSku = 'Standard_LRS'
param redis = false
param models = false

param serverSku = 'B1'
param serverPoolSize = 10
param corsOrigins = [
  '*'
]
param handlersSecretNames = {
  AUTH_API_KEYS: 'auth-api-keys'
  ENCRYPTION_KEY: 'encryption-key'
  CALLBACK_SECRET_CONSUMER: 'consumer-callback'
  WEBHOOK_SECRET_STRIPE: 'stripe-webhook'
  WEBHOOK_SECRET_CLERK: 'clerk-webhook'
  WEBHOOK_SECRET_GITHUB: 'github-webhook'
  WEBHOOK_SECRET_CRM: 'crm-webhook'
  WEBHOOK_SECRET_EVENT_GRID: 'event-grid-webhook'
  WEBHOOK_SECRET_AZURE_MONITOR: 'azure-monitor-webhook'
  WEBHOOK_SECRET_AZURE_DEVOPS: 'azure-devops-webhook'
  WEBHOOK_SECRET_SAILPOINT: 'sailpoint-webhook'
  WEBHOOK_SECRET_RUNPOD: 'runpod-webhook'
  WEBHOOK_SECRET_INTERNAL: 'internal-webhook'
  WEBHOOK_SECRET_PIPELINE: 'pipeline-webhook'
  WEBHOOK_SECRET_LEGACY: 'legacy-webhook'
}
param serverSecretNames = {
  AUTH_API_KEYS: 'auth-api-keys'
}
// What colloquy.toml asks for as ${NAME}.
param structureSettings = {
  CONSUMER_URL: readEnvironmentVariable('COLLOQUY_CONSUMER_URL')
}
param logLevel = 'info,colloquy=debug'

param alerts = false
param budgetAmount = 150
param budgetStart = '2026-12-01'
