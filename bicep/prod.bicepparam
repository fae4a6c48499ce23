// Production. High concurrency: serverSku P3v3.
using 'main.bicep'

param environmentName = 'prod'
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

param privateNetwork = true
param telemetryDailyGb = -1
param purgeProtection = true

// max_connections 1718, 15 of them reserved.
param databaseSku = 'Standard_D4ds_v5'
param databaseTier = 'GeneralPurpose'
param databaseConnections = 1703
param databaseZoneRedundant = true
param databaseGeoRedundantBackup = true

param storageSku = 'Standard_ZRS'
param backupGeoRedundant = true
param redis = true
param redisSku = 'Balanced_B1'
param models = true
param modelDeployments = [
  {
    name: 'main'
    model: 'gpt-5.1'
    version: '2025-11-13'
    sku: 'GlobalStandard'
    capacity: 120
  }
  {
    name: 'small'
    model: 'gpt-5.4-mini'
    version: '2026-03-17'
    sku: 'GlobalStandard'
    capacity: 200
  }
]

param handlersAlwaysReady = 1
param serverSku = 'P2v3'
param serverInstances = 2
param serverAutoscale = true
param serverMaximumInstances = 6
param serverZoneRedundant = true
param serverSlot = true
param serverDomain = readEnvironmentVariable('COLLOQUY_SERVER_DOMAIN', '')
param corsOrigins = split(readEnvironmentVariable('COLLOQUY_CORS_ORIGINS'), ',')
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

param frontDoor = true
param staticWeb = true
param staticWebDomain = readEnvironmentVariable('COLLOQUY_CONSOLE_DOMAIN', '')

param alerts = true
param budgetAmount = 2500
param budgetStart = '2026-12-01'
