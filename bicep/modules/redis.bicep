// Azure Managed Redis: what several servers share while it is live. Losing it degrades and loses nothing.

@description('Name of the cache.')
param name string
@description('Region.')
param location string
@description('Tags of every resource.')
param tags object
@description('Log Analytics workspace that takes diagnostics.')
param workspaceId string
@description('Size of the cache, such as Balanced_B0.')
param skuName string
@description('Whether a second node stands by.')
param highAvailability bool
@description('Whether the cache is reached by a private endpoint alone.')
param private bool
@description('Subnet of private endpoints; empty without a private network.')
param privateEndpointSubnetId string
@description('Private DNS zone of caches; empty without a private network.')
param zoneId string
@description('Principal ids of apps that use the cache.')
param userPrincipalIds string[]

resource cache 'Microsoft.Cache/redisEnterprise@2025-07-01' = {
  name: name
  location: location
  tags: tags
  sku: {
    name: skuName
  }
  properties: {
    minimumTlsVersion: '1.2'
    highAvailability: highAvailability ? 'Enabled' : 'Disabled'
    publicNetworkAccess: private ? 'Disabled' : 'Enabled'
  }
}

resource database 'Microsoft.Cache/redisEnterprise/databases@2025-07-01' = {
  parent: cache
  name: 'default'
  properties: {
    port: 10000
    clientProtocol: 'Encrypted'
    accessKeysAuthentication: 'Disabled'
    // A plain client: one address, no redirections.
    clusteringPolicy: 'NoCluster'
    evictionPolicy: 'VolatileLRU'
  }
}

@batchSize(1)
resource access 'Microsoft.Cache/redisEnterprise/databases/accessPolicyAssignments@2025-07-01' = [for (principalId, index) in userPrincipalIds: {
  parent: database
  name: 'app${index}'
  properties: {
    accessPolicyName: 'default'
    user: {
      objectId: principalId
    }
  }
}]

module endpoint 'private-endpoint.bicep' = if (private) {
  params: {
    name: '${name}-pe'
    location: location
    tags: tags
    subnetId: privateEndpointSubnetId
    targetId: cache.id
    groupId: 'redisEnterprise'
    zoneIds: [
      zoneId
    ]
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: cache
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}

resource databaseDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: database
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'allLogs'
        enabled: true
      }
    ]
  }
}

@description('Resource id of the cache.')
output id string = cache.id
@description('Address for REDIS_URL. It holds no password: the apps log in by token.')
output url string = 'rediss://${cache.properties.hostName}:10000'
