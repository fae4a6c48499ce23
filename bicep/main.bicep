// Everything of one environment, in a resource group of its own. One parameter file per environment: dev, staging, prod.
//   az deployment sub create --location REGION --parameters bicep/staging.bicepparam

targetScope = 'subscription'

import { modelDeployment } from 'modules/models.bicep'

@description('Which environment this is. The file of its parameters is called so.')
@allowed([
  'dev'
  'staging'
  'prod'
])
param environmentName string
@description('What names begin with, and the tag `project`.')
@minLength(3)
@maxLength(12)
param project string
@description('Region of everything that has one.')
param location string
@description('Who answers for the environment: the tag `owner`.')
param owner string
@description('Makes names unique in all of Azure. The default is always the same for one subscription and environment.')
@minLength(3)
@maxLength(6)
param suffix string = take(uniqueString(subscription().id, project, environmentName), 5)

@description('Whether data is reached over private endpoints alone. The database takes it at its creation, and keeps it.')
param privateNetwork bool
@description('Address space of the network.')
param networkPrefix string = '10.0.0.0/16'
@description('Addresses (CIDR) from which people and pipelines may reach the management subnet, and the apps past Front Door.')
param managementAddresses string[] = []
@description('Whether traffic to the internet leaves by a NAT gateway, with an address of its own.')
param natGateway bool = privateNetwork
@description('Whether there is a Bastion for people to reach the management subnet.')
param bastion bool = false

@description('Days that telemetry is kept.')
param telemetryDays int = 90
@description('Most gigabytes of telemetry a day; -1 for no limit.')
param telemetryDailyGb int
@description('Whether the vault keeps what was deleted for 90 days from everybody. It cannot be taken back.')
param purgeProtection bool
@description('Principal id of the deploying pipeline, which reads secrets; empty for none.')
param pipelinePrincipalId string = ''
@description('Principal id of what exports the database every night, and of nothing else; empty for none.')
param exportPrincipalId string = ''
@description('Object id of the group that administers the vault in an emergency; empty for none.')
param breakGlassGroupId string = ''
@description('What proves deliveries of Event Grid, to have the vault\'s events sent to the function app, once that runs; empty for none.')
@secure()
param eventGridSecret string = ''
@description('Object id of the developers\' group, which reads secrets; empty for none.')
param developersGroupId string = ''

@description('Major version of PostgreSQL.')
param databaseVersion string = '17'
@description('Size of PostgreSQL.')
param databaseSku string
@description('Tier of that size.')
param databaseTier string
@description('User connections that a server of that size takes (max_connections less 15).')
param databaseConnections int
@description('Gigabytes of storage to begin with.')
param databaseStorageGb int = 128
@description('Whether a second server stands by in another zone.')
param databaseZoneRedundant bool = false
@description('Whether backups are copied to the paired region.')
param databaseGeoRedundantBackup bool = false
@description('Days that backups are kept.')
param databaseBackupDays int = 35
@description('Object id of the Entra principal that administers PostgreSQL.')
param databaseAdministratorId string
@description('Name of that principal.')
param databaseAdministratorName string
@description('Kind of that principal.')
param databaseAdministratorType string = 'Group'
@description('Connections that PgBouncer opens for each pair of user and database.')
param databasePoolSize int = 50

@description('Copies of the storage account.')
param storageSku string
@description('Whether exports are copied to the paired region too.')
param backupGeoRedundant bool = false

@description('Whether there is a Redis. One server instance needs none.')
param redis bool
@description('Size of the cache.')
param redisSku string = 'Balanced_B0'
@description('Whether the cache has a second node.')
param redisHighAvailability bool = true

@description('Whether there is an Azure OpenAI account.')
param models bool
@description('Region of the models.')
param modelsLocation string = location
@description('Models to deploy. Versions end: docs/unverified.md says how to look.')
param modelDeployments modelDeployment[] = []

@description('Most instances of the function app.')
param handlersMaximumInstances int = 40
@description('Memory of an instance of the function app in megabytes.')
param handlersMemoryMb int = 2048
@description('Instances of the function app that always wait for webhooks.')
param handlersAlwaysReady int = 0
@description('Most connections to the database of one instance of the function app.')
@minValue(1)
@maxValue(15)
param handlersPoolSize int = 2
@description('Settings of the function app that differ from their defaults, by name.')
param handlersSettings object = {}
@description('Secrets of the function app: name of the setting, and what follows the project in the secret\'s name.')
param handlersSecretNames object

@description('Size of the server\'s plan.')
param serverSku string
@description('Stack whose image the server runs in.')
param serverStack string = 'DOTNETCORE|10.0'
@description('Instances of the server; with scaling, the fewest.')
param serverInstances int = 1
@description('Whether the number of instances follows load.')
param serverAutoscale bool = false
@description('Most instances of the server.')
param serverMaximumInstances int = 1
@description('Whether the plan is spread over zones.')
param serverZoneRedundant bool = false
@description('Whether there is a slot to deploy to and swap from.')
param serverSlot bool = false
@description('Most connections to the database of one instance of the server.')
@minValue(1)
@maxValue(15)
param serverPoolSize int = 10
@description('Settings of the server that differ from their defaults, by name.')
param serverSettings object = {}
@description('Secrets of the server: name of the setting, and what follows the project in the secret\'s name.')
param serverSecretNames object
@description('Browser origins that may call the server.')
param corsOrigins string[] = []
@description('Host name of the server of one\'s own; empty for none.')
param serverDomain string = ''
@description('Without Front Door: whether its certificate lies in the vault, as `{project}-server-certificate`; else Azure makes one.')
param serverCertificateFromVault bool = false

@description('Values that colloquy.toml takes from the environment, by name.')
param structureSettings object = {}
@description('What is logged.')
param logLevel string = 'info'

@description('Whether there is a Front Door with a firewall before both apps.')
param frontDoor bool = false
@description('Tier of Front Door.')
param frontDoorSku string = 'Standard_AzureFrontDoor'
@description('Requests a minute from one address that Front Door lets through.')
param frontDoorRequestsPerMinute int = 3000
@description('Addresses (CIDR) that Front Door denies.')
param deniedAddresses string[] = []
@description('Whether the console is on Static Web Apps.')
param staticWeb bool = false
@description('Region of Static Web Apps, which few have.')
param staticWebLocation string = 'westeurope'
@description('Size of Static Web Apps.')
param staticWebSku string = 'Standard'
@description('Host name of the console of one\'s own; empty for none.')
param staticWebDomain string = ''

@description('Whether alerts tell anybody.')
param alerts bool
@description('Addresses that are mailed.')
param mailAddresses string[]
@description('Webhook of the team\'s channel; empty for none.')
@secure()
param chatWebhook string = ''
@description('Webhook of whoever is on call; empty for none.')
@secure()
param pageWebhook string = ''
@description('The month\'s budget, in the subscription\'s currency.')
param budgetAmount int
@description('First day of the budget\'s first month.')
param budgetStart string

var prefix = '${project}-${environmentName}'
var compact = '${project}${environmentName}${suffix}'
var tags = {
  project: project
  environment: environmentName
  owner: owner
  'azd-env-name': environmentName
}
var queueNames = [
  'events'
  'jobs'
  'callbacks'
  'usage'
]
var containerName = 'colloquy'
var packageContainer = 'packages'
// Names that App Service gives; Front Door must know them before the apps exist, and the apps must know Front Door.
var handlersName = '${prefix}-handlers-${suffix}'
var serverName = '${prefix}-server-${suffix}'
var vaultName = take('kv-${compact}', 24)
var vaultUri = 'https://${vaultName}${environment().suffixes.keyvaultDns}/'

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: 'rg-${prefix}'
  location: location
  tags: tags
}

module identity 'modules/identity.bicep' = {
  scope: group
  params: {
    prefix: prefix
    location: location
    tags: tags
  }
}

module telemetry 'modules/telemetry.bicep' = {
  scope: group
  params: {
    prefix: prefix
    location: location
    tags: tags
    retentionDays: telemetryDays
    dailyQuotaGb: telemetryDailyGb
    publisherPrincipalIds: [
      identity.outputs.handlers.principalId
      identity.outputs.server.principalId
    ]
  }
}

module network 'modules/network.bicep' = if (privateNetwork) {
  scope: group
  params: {
    prefix: prefix
    location: location
    tags: tags
    workspaceId: telemetry.outputs.workspaceId
    addressPrefix: networkPrefix
    managementAddresses: managementAddresses
    natGateway: natGateway
    bastion: bastion
  }
}

module vault 'modules/vault.bicep' = {
  scope: group
  params: {
    name: vaultName
    location: location
    tags: tags
    workspaceId: telemetry.outputs.workspaceId
    private: privateNetwork
    privateEndpointSubnetId: privateNetwork ? network!.outputs.privateEndpointSubnetId : ''
    zoneId: privateNetwork ? network!.outputs.zoneIds.vault : ''
    purgeProtection: purgeProtection
    readerPrincipalIds: [
      identity.outputs.handlers.principalId
      identity.outputs.server.principalId
    ]
    pipelinePrincipalId: pipelinePrincipalId
    breakGlassGroupId: breakGlassGroupId
    developersGroupId: developersGroupId
  }
}

module storage 'modules/storage.bicep' = {
  scope: group
  params: {
    name: take('st${compact}', 24)
    location: location
    tags: tags
    workspaceId: telemetry.outputs.workspaceId
    private: privateNetwork
    privateEndpointSubnetId: privateNetwork ? network!.outputs.privateEndpointSubnetId : ''
    zoneIds: privateNetwork ? network!.outputs.zoneIds : {}
    skuName: storageSku
    containerNames: concat([
      containerName
      packageContainer
    ], serverSlot ? [
      '${containerName}-slot'
    ] : [])
    queueNames: concat(queueNames, serverSlot ? map(queueNames, name => '${name}-slot') : [])
    bodiesContainerName: containerName
    bodyDays: 400
    ownerPrincipalId: identity.outputs.handlers.principalId
    contributorPrincipalIds: [
      identity.outputs.server.principalId
    ]
  }
}

module backup 'modules/backup.bicep' = {
  scope: group
  params: {
    accountName: take('bk${compact}', 24)
    location: location
    tags: tags
    workspaceId: telemetry.outputs.workspaceId
    private: privateNetwork
    privateEndpointSubnetId: privateNetwork ? network!.outputs.privateEndpointSubnetId : ''
    zoneId: privateNetwork ? network!.outputs.zoneIds.blob : ''
    geoRedundant: backupGeoRedundant
    exportDays: 30
    longExportDays: 365
    writerPrincipalId: exportPrincipalId
  }
}

module database 'modules/database.bicep' = {
  scope: group
  params: {
    name: 'psql-${prefix}-${suffix}'
    location: location
    tags: tags
    workspaceId: telemetry.outputs.workspaceId
    version: databaseVersion
    skuName: databaseSku
    skuTier: databaseTier
    storageGb: databaseStorageGb
    zoneRedundant: databaseZoneRedundant
    geoRedundantBackup: databaseGeoRedundantBackup
    backupDays: databaseBackupDays
    private: privateNetwork
    subnetId: privateNetwork ? network!.outputs.databaseSubnetId : ''
    zoneId: privateNetwork ? network!.outputs.zoneIds.database : ''
    administratorId: databaseAdministratorId
    administratorName: databaseAdministratorName
    administratorType: databaseAdministratorType
    databaseNames: concat([
      'colloquy'
    ], serverSlot ? [
      'colloquy_slot'
    ] : [])
    poolSize: databasePoolSize
  }
}

module cache 'modules/redis.bicep' = if (redis) {
  scope: group
  params: {
    name: 'redis-${prefix}-${suffix}'
    location: location
    tags: tags
    workspaceId: telemetry.outputs.workspaceId
    skuName: redisSku
    highAvailability: redisHighAvailability
    private: privateNetwork
    privateEndpointSubnetId: privateNetwork ? network!.outputs.privateEndpointSubnetId : ''
    zoneId: privateNetwork ? network!.outputs.zoneIds.redis : ''
    userPrincipalIds: [
      identity.outputs.handlers.principalId
      identity.outputs.server.principalId
    ]
  }
}

module openai 'modules/models.bicep' = if (models) {
  scope: group
  params: {
    name: 'oai-${prefix}-${suffix}'
    location: modelsLocation
    networkLocation: location
    tags: tags
    workspaceId: telemetry.outputs.workspaceId
    private: privateNetwork
    privateEndpointSubnetId: privateNetwork ? network!.outputs.privateEndpointSubnetId : ''
    zoneIds: privateNetwork ? network!.outputs.zoneIds : {}
    userPrincipalIds: [
      identity.outputs.handlers.principalId
      identity.outputs.server.principalId
    ]
    deployments: modelDeployments
  }
}

module edge 'modules/edge.bicep' = if (frontDoor) {
  scope: group
  params: {
    prefix: prefix
    tags: tags
    workspaceId: telemetry.outputs.workspaceId
    skuName: frontDoorSku
    functionHost: '${handlersName}.azurewebsites.net'
    serverHost: '${serverName}.azurewebsites.net'
    customDomain: serverDomain
    requestsPerMinute: frontDoorRequestsPerMinute
    deniedAddresses: deniedAddresses
  }
}

var common = union({
  APP_ENV: environmentName == 'prod' ? 'production' : environmentName
  APP_LOG_LEVEL: logLevel
  AZURE_CREDENTIAL: 'managed-identity'
  DB_AUTH_MODE: 'entra'
  AzureWebJobsStorage__accountName: storage.outputs.name
  AzureWebJobsStorage__blobServiceUri: storage.outputs.blobUri
  AzureWebJobsStorage__queueServiceUri: storage.outputs.queueUri
  AzureWebJobsStorage__tableServiceUri: storage.outputs.tableUri
  AzureWebJobsStorage__credential: 'managedidentity'
  QUEUE_EVENTS: 'events'
  QUEUE_JOBS: 'jobs'
  QUEUE_CALLBACKS: 'callbacks'
  QUEUE_USAGE: 'usage'
  BLOB_CONTAINER: containerName
  OTEL_TRACES_SAMPLER: environmentName == 'dev' ? 'always_on' : 'microsoft.rate_limited'
  OTEL_TRACES_SAMPLER_ARG: '5'
}, redis ? {
  REDIS_URL: cache!.outputs.url
  REDIS_AUTH_MODE: 'entra'
} : {}, models ? {
  AZURE_OPENAI_URL: openai!.outputs.url
} : {}, structureSettings)

// The trailing slash makes a reference follow new versions of its secret.
var handlersReferences = toObject(items(handlersSecretNames), item => item.key, item => '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/${project}-${item.value}/)')
var serverReferences = toObject(items(serverSecretNames), item => item.key, item => '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/${project}-${item.value}/)')

// Who may pass by Front Door: people, and what deploys from the management subnet, which goes out by the NAT gateway.
var passingAddresses = concat(managementAddresses, privateNetwork && natGateway ? [
  network!.outputs.egressAddress
] : [])

module handlers 'modules/function-app.bicep' = {
  scope: group
  params: {
    name: handlersName
    location: location
    tags: tags
    workspaceId: telemetry.outputs.workspaceId
    insightsName: telemetry.outputs.insightsName
    identity: identity.outputs.handlers
    subnetId: privateNetwork ? network!.outputs.functionsSubnetId : ''
    packageContainerUri: '${storage.outputs.blobUri}${packageContainer}'
    settings: union(common, {
      AZURE_CLIENT_ID: identity.outputs.handlers.clientId
      AzureWebJobsStorage__clientId: identity.outputs.handlers.clientId
      APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'Authorization=AAD;ClientId=${identity.outputs.handlers.clientId}'
      OTEL_SERVICE_NAME: 'function-handlers'
      DATABASE_URL: 'postgres://${identity.outputs.handlers.name}@${database.outputs.host}:${database.outputs.pooledPort}/colloquy'
      DATABASE_DIRECT_URL: 'postgres://${identity.outputs.handlers.name}@${database.outputs.host}:5432/colloquy'
      DB_POOL_SIZE: string(handlersPoolSize)
    }, redis ? {
      REDIS_USERNAME: identity.outputs.handlers.principalId
    } : {}, handlersSettings, handlersReferences)
    maximumInstances: handlersMaximumInstances
    instanceMemoryMb: handlersMemoryMb
    alwaysReadyHttp: handlersAlwaysReady
    frontDoorId: frontDoor ? edge!.outputs.frontDoorId : ''
    managementAddresses: passingAddresses
  }
  // References to secrets are read when the app starts.
  dependsOn: [
    vault
  ]
}

module server 'modules/server.bicep' = {
  scope: group
  params: {
    name: serverName
    location: location
    tags: tags
    workspaceId: telemetry.outputs.workspaceId
    insightsName: telemetry.outputs.insightsName
    identity: identity.outputs.server
    subnetId: privateNetwork ? network!.outputs.appSubnetId : ''
    skuName: serverSku
    instances: serverInstances
    zoneRedundant: serverZoneRedundant
    linuxFxVersion: serverStack
    settings: union(common, {
      AZURE_CLIENT_ID: identity.outputs.server.clientId
      AzureWebJobsStorage__clientId: identity.outputs.server.clientId
      APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'Authorization=AAD;ClientId=${identity.outputs.server.clientId}'
      OTEL_SERVICE_NAME: 'conversation-server'
      DATABASE_URL: 'postgres://${identity.outputs.server.name}@${database.outputs.host}:${database.outputs.pooledPort}/colloquy'
      DB_POOL_SIZE: string(serverPoolSize)
      // With APP_ENV=dev it would listen to its own machine alone.
      BIND_ADDRESS: '0.0.0.0'
      CORS_ORIGINS: join(corsOrigins, ',')
    }, redis ? {
      REDIS_USERNAME: identity.outputs.server.principalId
    } : {}, serverSettings, serverReferences)
    slot: serverSlot
    slotSettings: {
      // A database and queues of its own: what is tried there takes no work of production.
      APP_ENV: 'staging'
      OTEL_SERVICE_NAME: 'conversation-server-slot'
      DATABASE_URL: 'postgres://${identity.outputs.server.name}@${database.outputs.host}:${database.outputs.pooledPort}/colloquy_slot'
      QUEUE_EVENTS: 'events-slot'
      QUEUE_JOBS: 'jobs-slot'
      QUEUE_CALLBACKS: 'callbacks-slot'
      QUEUE_USAGE: 'usage-slot'
      BLOB_CONTAINER: '${containerName}-slot'
    }
    // One instance shares with nobody.
    slotWithout: [
      'REDIS_URL'
      'REDIS_AUTH_MODE'
      'REDIS_USERNAME'
    ]
    stickySettings: [
      'APP_ENV'
      'APPLICATIONINSIGHTS_CONNECTION_STRING'
      'APPLICATIONINSIGHTS_AUTHENTICATION_STRING'
      'OTEL_SERVICE_NAME'
      'DATABASE_URL'
      'QUEUE_EVENTS'
      'QUEUE_JOBS'
      'QUEUE_CALLBACKS'
      'QUEUE_USAGE'
      'BLOB_CONTAINER'
      'REDIS_URL'
      'REDIS_AUTH_MODE'
      'REDIS_USERNAME'
    ]
    autoscale: serverAutoscale
    minimumInstances: serverInstances
    maximumInstances: serverMaximumInstances
    frontDoorId: frontDoor ? edge!.outputs.frontDoorId : ''
    managementAddresses: passingAddresses
    // Where there is a Front Door, the name is its.
    customDomain: frontDoor ? '' : serverDomain
    certificateVaultId: serverCertificateFromVault ? vault.outputs.id : ''
    certificateSecretName: '${project}-server-certificate'
  }
}

module vaultEvents 'modules/vault-events.bicep' = if (!empty(eventGridSecret)) {
  scope: group
  params: {
    prefix: prefix
    location: location
    tags: tags
    workspaceId: telemetry.outputs.workspaceId
    vaultId: vault.outputs.id
    endpointUrl: '${frontDoor ? 'https://${edge!.outputs.host}' : 'https://${handlers.outputs.host}'}/api/webhooks/event-grid'
    webhookSecret: eventGridSecret
  }
}

module console 'modules/static-web.bicep' = if (staticWeb) {
  scope: group
  params: {
    name: '${prefix}-console'
    location: staticWebLocation
    tags: tags
    skuName: staticWebSku
    customDomain: staticWebDomain
  }
}

module alerting 'modules/alerts.bicep' = {
  scope: group
  params: {
    prefix: prefix
    location: location
    tags: tags
    workspaceId: telemetry.outputs.workspaceId
    siteId: server.outputs.id
    planId: server.outputs.planId
    databaseId: database.outputs.id
    databaseConnections: databaseConnections
    redisId: redis ? cache!.outputs.id : ''
    storageId: storage.outputs.id
    enabled: alerts
    mailAddresses: mailAddresses
    chatWebhook: chatWebhook
    pageWebhook: pageWebhook
  }
}

module dashboards 'modules/dashboards.bicep' = {
  scope: group
  params: {
    prefix: prefix
    location: location
    tags: tags
    workspaceId: telemetry.outputs.workspaceId
    targets: union({
      'Microsoft.Web/sites': server.outputs.id
      'Microsoft.Web/serverfarms': server.outputs.planId
      'Microsoft.DBforPostgreSQL/flexibleServers': database.outputs.id
      'Microsoft.Storage/storageAccounts': storage.outputs.id
    }, redis ? {
      'Microsoft.Cache/redisEnterprise': cache!.outputs.id
    } : {})
  }
}

module budget 'modules/budget.bicep' = {
  scope: group
  params: {
    name: '${prefix}-budget'
    amount: budgetAmount
    startDate: budgetStart
    emailAddresses: mailAddresses
    actionGroupIds: [
      alerting.outputs.mailGroupId
    ]
  }
}

// Upper case, as azd takes outputs over into its environment.
@description('Resource group of the environment.')
output AZURE_RESOURCE_GROUP string = group.name
@description('Name of the function app.')
output HANDLERS_NAME string = handlers.outputs.name
@description('Address of the function app.')
output HANDLERS_URL string = 'https://${handlers.outputs.host}'
@description('Name of the server.')
output SERVER_NAME string = server.outputs.name
@description('Address of the server.')
output SERVER_URL string = empty(serverDomain) ? 'https://${server.outputs.host}' : 'https://${serverDomain}'
@description('Host name that the server\'s own name must lead to (CNAME).')
output SERVER_HOST string = frontDoor ? edge!.outputs.host : server.outputs.host
@description('Address of Front Door; empty without one.')
output EDGE_URL string = frontDoor ? 'https://${edge!.outputs.host}' : ''
@description('Where callers of the server find it: its own name, Front Door, or what Azure gave it.')
output API_URL string = !empty(serverDomain) ? 'https://${serverDomain}' : frontDoor ? 'https://${edge!.outputs.host}' : 'https://${server.outputs.host}'
@description('Name of the console; empty without Static Web Apps.')
output CONSOLE_NAME string = staticWeb ? console!.outputs.name : ''
@description('Host name of the console, which its own name must lead to (CNAME); empty without Static Web Apps.')
output CONSOLE_HOST string = staticWeb ? console!.outputs.host : ''
@description('Address of the console that Azure gave it; empty without Static Web Apps.')
output CONSOLE_URL string = staticWeb ? 'https://${console!.outputs.host}' : ''
@description('Address of the vault.')
output VAULT_URI string = vault.outputs.uri
@description('Host name of PostgreSQL.')
output DATABASE_HOST string = database.outputs.host
@description('Roles that the administrator makes in PostgreSQL (pgaadauth_create_principal): the identities\' names.')
output DATABASE_ROLES string[] = [
  identity.outputs.handlers.name
  identity.outputs.server.name
]
@description('Where exports of the database go.')
output EXPORTS_URI string = backup.outputs.exportsUri
