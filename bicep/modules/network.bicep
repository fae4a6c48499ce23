// The virtual network: a subnet per kind of thing, and the zones that private endpoints are found in.

@description('What every name begins with.')
param prefix string
@description('Region.')
param location string
@description('Tags of every resource.')
param tags object
@description('Log Analytics workspace that takes diagnostics.')
param workspaceId string
@description('Address space of the whole network. The subnets are its /24s from the second on.')
param addressPrefix string
@description('Addresses (CIDR) from which people may reach the management subnet.')
param managementAddresses string[]
@description('Whether traffic to the internet leaves by a NAT gateway, with an address of its own.')
param natGateway bool
@description('Whether there is a Bastion for people to reach the management subnet.')
param bastion bool

var subnets = {
  app: cidrSubnet(addressPrefix, 24, 1)
  privateEndpoints: cidrSubnet(addressPrefix, 24, 2)
  database: cidrSubnet(addressPrefix, 24, 3)
  management: cidrSubnet(addressPrefix, 24, 4)
  functions: cidrSubnet(addressPrefix, 24, 5)
  bastion: cidrSubnet(addressPrefix, 26, 24)
}
var zoneNames = {
  blob: 'privatelink.blob.${environment().suffixes.storage}'
  queue: 'privatelink.queue.${environment().suffixes.storage}'
  table: 'privatelink.table.${environment().suffixes.storage}'
  vault: 'privatelink.vaultcore.azure.net'
  redis: 'privatelink.redis.azure.net'
  cognitive: 'privatelink.cognitiveservices.azure.com'
  openai: 'privatelink.openai.azure.com'
  aiServices: 'privatelink.services.ai.azure.com'
  // A server in a subnet of its own has no endpoint; its zone only has to end like this.
  database: '${prefix}.private.postgres.database.azure.com'
}
var zoneKeys = [
  'blob'
  'queue'
  'table'
  'vault'
  'redis'
  'cognitive'
  'openai'
  'aiServices'
  'database'
]
var egress = natGateway ? {
  natGateway: {
    id: nat.id
  }
} : {}

module rules 'network-rules.bicep' = {
  params: {
    prefix: prefix
    location: location
    tags: tags
    workspaceId: workspaceId
    subnets: subnets
    managementAddresses: managementAddresses
    bastion: bastion
  }
}

resource natAddress 'Microsoft.Network/publicIPAddresses@2025-09-01' = if (natGateway) {
  name: '${prefix}-nat-ip'
  location: location
  tags: tags
  sku: {
    name: 'Standard'
  }
  properties: {
    publicIPAllocationMethod: 'Static'
  }
}

resource nat 'Microsoft.Network/natGateways@2025-09-01' = if (natGateway) {
  name: '${prefix}-nat'
  location: location
  tags: tags
  sku: {
    name: 'Standard'
  }
  properties: {
    idleTimeoutInMinutes: 10
    publicIpAddresses: [
      {
        id: natAddress.id
      }
    ]
  }
}

resource network 'Microsoft.Network/virtualNetworks@2025-09-01' = {
  name: '${prefix}-vnet'
  location: location
  tags: tags
  properties: {
    addressSpace: {
      addressPrefixes: [
        addressPrefix
      ]
    }
    // Subnets stand here and not beside: a network deployed again without them would try to delete them.
    subnets: concat([
      {
        name: 'app'
        properties: union({
          addressPrefix: subnets.app
          defaultOutboundAccess: false
          networkSecurityGroup: {
            id: rules.outputs.clients
          }
          delegations: [
            {
              name: 'app-service'
              properties: {
                serviceName: 'Microsoft.Web/serverFarms'
              }
            }
          ]
        }, egress)
      }
      {
        name: 'private-endpoints'
        properties: {
          addressPrefix: subnets.privateEndpoints
          defaultOutboundAccess: false
          privateEndpointNetworkPolicies: 'Enabled'
          networkSecurityGroup: {
            id: rules.outputs.endpoints
          }
        }
      }
      {
        name: 'database'
        properties: {
          addressPrefix: subnets.database
          defaultOutboundAccess: false
          networkSecurityGroup: {
            id: rules.outputs.database
          }
          serviceEndpoints: [
            {
              service: 'Microsoft.Storage'
            }
          ]
          delegations: [
            {
              name: 'postgresql'
              properties: {
                serviceName: 'Microsoft.DBforPostgreSQL/flexibleServers'
              }
            }
          ]
        }
      }
      {
        name: 'management'
        // What deploys from here asks Azure's management interface, and pipelines their service.
        properties: union({
          addressPrefix: subnets.management
          defaultOutboundAccess: false
          networkSecurityGroup: {
            id: rules.outputs.management
          }
        }, egress)
      }
      {
        name: 'functions'
        properties: union({
          addressPrefix: subnets.functions
          defaultOutboundAccess: false
          networkSecurityGroup: {
            id: rules.outputs.clients
          }
          delegations: [
            {
              name: 'flex-consumption'
              properties: {
                serviceName: 'Microsoft.App/environments'
              }
            }
          ]
        }, egress)
      }
    ], bastion ? [
      {
        name: 'AzureBastionSubnet'
        properties: {
          addressPrefix: subnets.bastion
        }
      }
    ] : [])
  }
}

resource zones 'Microsoft.Network/privateDnsZones@2024-06-01' = [for key in zoneKeys: {
  name: zoneNames[key]
  location: 'global'
  tags: tags
}]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [for (key, index) in zoneKeys: {
  parent: zones[index]
  name: '${prefix}-vnet'
  location: 'global'
  tags: tags
  properties: {
    registrationEnabled: false
    virtualNetwork: {
      id: network.id
    }
  }
}]

resource bastionAddress 'Microsoft.Network/publicIPAddresses@2025-09-01' = if (bastion) {
  name: '${prefix}-bastion-ip'
  location: location
  tags: tags
  sku: {
    name: 'Standard'
  }
  properties: {
    publicIPAllocationMethod: 'Static'
  }
}

resource bastionHost 'Microsoft.Network/bastionHosts@2025-09-01' = if (bastion) {
  name: '${prefix}-bastion'
  location: location
  tags: tags
  sku: {
    name: 'Basic'
  }
  properties: {
    ipConfigurations: [
      {
        name: 'default'
        properties: {
          subnet: {
            id: '${network.id}/subnets/AzureBastionSubnet'
          }
          publicIPAddress: {
            id: bastionAddress.id
          }
        }
      }
    ]
  }
}

resource networkDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: network
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

resource bastionHostDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = if (bastion) {
  scope: bastionHost
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

@description('Resource id of the subnet of the conversation server.')
output appSubnetId string = '${network.id}/subnets/app'
@description('Resource id of the subnet of the function app.')
output functionsSubnetId string = '${network.id}/subnets/functions'
@description('Resource id of the subnet of private endpoints.')
output privateEndpointSubnetId string = '${network.id}/subnets/private-endpoints'
@description('Resource id of the subnet of PostgreSQL.')
output databaseSubnetId string = '${network.id}/subnets/database'
@description('Resource ids of the private DNS zones: blob, queue, table, vault, redis, cognitive, openai, aiServices, database.')
output zoneIds object = toObject(zoneKeys, key => key, key => resourceId('Microsoft.Network/privateDnsZones', zoneNames[key]))
@description('Address by which traffic leaves, as a range; empty without a NAT gateway.')
output egressAddress string = natGateway ? '${natAddress!.properties.ipAddress}/32' : ''
