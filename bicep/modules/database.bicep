// PostgreSQL: logins by Entra token alone, PgBouncer where the tier has it, in a subnet of its own where there is a network.

@description('Name of the server, unique in all of Azure.')
param name string
@description('Region.')
param location string
@description('Tags of every resource.')
param tags object
@description('Log Analytics workspace that takes diagnostics.')
param workspaceId string
@description('Major version of PostgreSQL.')
@allowed([
  '16'
  '17'
  '18'
])
param version string
@description('Size of the server.')
param skuName string
@description('Tier of that size. Burstable has no PgBouncer.')
@allowed([
  'Burstable'
  'GeneralPurpose'
  'MemoryOptimized'
])
param skuTier string
@description('Gigabytes of storage to begin with; it grows by itself.')
@minValue(32)
param storageGb int
@description('Whether a second server stands by in another zone.')
param zoneRedundant bool
@description('Whether backups are copied to the paired region. Fixed at creation.')
param geoRedundantBackup bool
@description('Days that backups are kept.')
@minValue(7)
@maxValue(35)
param backupDays int
@description('Whether the server stands in the network. Fixed at creation.')
param private bool
@description('Delegated subnet; empty without a private network.')
param subnetId string
@description('Private DNS zone; empty without a private network.')
param zoneId string
@description('Object id of the Entra principal that administers the server and makes the apps\' roles.')
param administratorId string
@description('Name of that principal.')
param administratorName string
@description('Kind of that principal.')
@allowed([
  'User'
  'Group'
  'ServicePrincipal'
])
param administratorType string
@description('Databases to make.')
param databaseNames string[]
@description('Connections that PgBouncer opens for each pair of user and database.')
@minValue(10)
param poolSize int

var pooled = skuTier != 'Burstable'
var poolerParameters = pooled ? [
  {
    name: 'pgbouncer.enabled'
    value: 'true'
  }
  {
    name: 'pgbouncer.pool_mode'
    value: 'transaction'
  }
  {
    name: 'pgbouncer.default_pool_size'
    value: string(poolSize)
  }
  {
    name: 'pgbouncer.min_pool_size'
    value: '10'
  }
  {
    name: 'pgbouncer.server_idle_timeout'
    value: '600'
  }
] : []
var parameters = concat([
  // An advisory lock goes with its connection; this makes a dead client's connection end while a statement runs.
  {
    name: 'client_connection_check_interval'
    value: '5000'
  }
  {
    name: 'require_secure_transport'
    value: 'ON'
  }
  {
    name: 'azure.extensions'
    value: 'PG_STAT_STATEMENTS'
  }
], poolerParameters)

resource server 'Microsoft.DBforPostgreSQL/flexibleServers@2025-08-01' = {
  name: name
  location: location
  tags: tags
  sku: {
    name: skuName
    tier: skuTier
  }
  properties: {
    createMode: 'Default'
    version: version
    authConfig: {
      activeDirectoryAuth: 'Enabled'
      passwordAuth: 'Disabled'
      tenantId: tenant().tenantId
    }
    storage: {
      storageSizeGB: storageGb
      autoGrow: 'Enabled'
    }
    backup: {
      backupRetentionDays: backupDays
      geoRedundantBackup: geoRedundantBackup ? 'Enabled' : 'Disabled'
    }
    highAvailability: {
      mode: zoneRedundant ? 'ZoneRedundant' : 'Disabled'
    }
    maintenanceWindow: {
      customWindow: 'Enabled'
      dayOfWeek: 0
      startHour: 3
      startMinute: 0
    }
    network: private ? {
      delegatedSubnetResourceId: subnetId
      privateDnsZoneArmResourceId: zoneId
      publicNetworkAccess: 'Disabled'
    } : {
      publicNetworkAccess: 'Enabled'
    }
  }
}

// Azure takes one change of a server at a time: each of the following waits for the one before.
resource administrator 'Microsoft.DBforPostgreSQL/flexibleServers/administrators@2025-08-01' = {
  parent: server
  name: administratorId
  properties: {
    principalName: administratorName
    principalType: administratorType
    tenantId: tenant().tenantId
  }
}

@batchSize(1)
resource databases 'Microsoft.DBforPostgreSQL/flexibleServers/databases@2025-08-01' = [for database in databaseNames: {
  parent: server
  name: database
  properties: {
    charset: 'UTF8'
    collation: 'en_US.utf8'
  }
  dependsOn: [
    administrator
  ]
}]

@batchSize(1)
resource configuration 'Microsoft.DBforPostgreSQL/flexibleServers/configurations@2025-08-01' = [for parameter in parameters: {
  parent: server
  name: parameter.name
  properties: {
    value: parameter.value
    source: 'user-override'
  }
  dependsOn: [
    databases
  ]
}]

// Without a network: from Azure alone. The rule of zeros means exactly that.
resource fromAzure 'Microsoft.DBforPostgreSQL/flexibleServers/firewallRules@2025-08-01' = if (!private) {
  parent: server
  name: 'from-azure'
  properties: {
    startIpAddress: '0.0.0.0'
    endIpAddress: '0.0.0.0'
  }
  dependsOn: [
    configuration
  ]
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: server
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'allLogs'
        enabled: true
      }
    ]
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}

@description('Resource id of the server.')
output id string = server.id
@description('Host name of the server.')
output host string = server.properties.fullyQualifiedDomainName
@description('Port for everything but migrations: PgBouncer\'s, or PostgreSQL\'s where there is none.')
output pooledPort int = pooled ? 6432 : 5432
