// What may speak to what: a security group for each kind of subnet, and nothing that no rule allows.

@description('What every name begins with.')
param prefix string
@description('Region.')
param location string
@description('Tags of every resource.')
param tags object
@description('Log Analytics workspace that takes diagnostics.')
param workspaceId string
@description('Addresses (CIDR) of each subnet.')
param subnets subnetAddresses
@description('Addresses (CIDR) from which people may reach the management subnet.')
param managementAddresses string[]
@description('Whether there is a Bastion, which reaches the management subnet.')
param bastion bool

@description('The subnets, by what stands in them.')
type subnetAddresses = {
  @description('The conversation server.')
  app: string
  @description('Private endpoints.')
  privateEndpoints: string
  @description('PostgreSQL.')
  database: string
  @description('People, and the runner that deploys.')
  management: string
  @description('The function app.')
  functions: string
  @description('Bastion.')
  bastion: string
}

var clients = [
  subnets.app
  subnets.functions
]

// What apps may reach. Beyond it, nothing: a program that was taken over finds no other way out than HTTPS.
resource clientRules 'Microsoft.Network/networkSecurityGroups@2025-09-01' = {
  name: '${prefix}-app-nsg'
  location: location
  tags: tags
  properties: {
    securityRules: [
      {
        name: 'AllowPrivateEndpoints'
        properties: {
          priority: 100
          direction: 'Outbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefixes: clients
          sourcePortRange: '*'
          destinationAddressPrefix: subnets.privateEndpoints
          destinationPortRanges: [
            '443'
            '10000'
          ]
        }
      }
      {
        name: 'AllowDatabase'
        properties: {
          priority: 110
          direction: 'Outbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefixes: clients
          sourcePortRange: '*'
          destinationAddressPrefix: subnets.database
          destinationPortRanges: [
            '5432'
            '6432'
          ]
        }
      }
      {
        name: 'AllowInternetHttps'
        properties: {
          priority: 120
          direction: 'Outbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefixes: clients
          sourcePortRange: '*'
          destinationAddressPrefix: 'Internet'
          destinationPortRange: '443'
        }
      }
      {
        name: 'DenyAllOutbound'
        properties: {
          priority: 4000
          direction: 'Outbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
    ]
  }
}

resource endpointRules 'Microsoft.Network/networkSecurityGroups@2025-09-01' = {
  name: '${prefix}-pe-nsg'
  location: location
  tags: tags
  properties: {
    securityRules: [
      {
        name: 'AllowFromApps'
        properties: {
          priority: 100
          direction: 'Inbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefixes: union(clients, [subnets.management])
          sourcePortRange: '*'
          destinationAddressPrefix: subnets.privateEndpoints
          destinationPortRanges: [
            '443'
            '10000'
          ]
        }
      }
      {
        name: 'DenyAllInbound'
        properties: {
          priority: 4000
          direction: 'Inbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
    ]
  }
}

// High availability needs the subnet to reach itself, backup needs Storage, logins by token need Entra.
resource databaseRules 'Microsoft.Network/networkSecurityGroups@2025-09-01' = {
  name: '${prefix}-db-nsg'
  location: location
  tags: tags
  properties: {
    securityRules: [
      {
        name: 'AllowFromApps'
        properties: {
          priority: 100
          direction: 'Inbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefixes: union(clients, [subnets.management])
          sourcePortRange: '*'
          destinationAddressPrefix: subnets.database
          destinationPortRanges: [
            '5432'
            '6432'
          ]
        }
      }
      {
        name: 'AllowItselfInbound'
        properties: {
          priority: 110
          direction: 'Inbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefix: subnets.database
          sourcePortRange: '*'
          destinationAddressPrefix: subnets.database
          destinationPortRanges: [
            '5432'
            '6432'
          ]
        }
      }
      {
        name: 'DenyAllInbound'
        properties: {
          priority: 4000
          direction: 'Inbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
      {
        name: 'AllowItselfOutbound'
        properties: {
          priority: 100
          direction: 'Outbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefix: subnets.database
          sourcePortRange: '*'
          destinationAddressPrefix: subnets.database
          destinationPortRanges: [
            '5432'
            '6432'
          ]
        }
      }
      {
        name: 'AllowStorage'
        properties: {
          priority: 110
          direction: 'Outbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefix: subnets.database
          sourcePortRange: '*'
          destinationAddressPrefix: 'Storage'
          destinationPortRange: '443'
        }
      }
      {
        name: 'AllowEntra'
        properties: {
          priority: 120
          direction: 'Outbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefix: subnets.database
          sourcePortRange: '*'
          destinationAddressPrefix: 'AzureActiveDirectory'
          destinationPortRange: '443'
        }
      }
      {
        name: 'DenyAllOutbound'
        properties: {
          priority: 4000
          direction: 'Outbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
    ]
  }
}

resource managementRules 'Microsoft.Network/networkSecurityGroups@2025-09-01' = {
  name: '${prefix}-mgmt-nsg'
  location: location
  tags: tags
  properties: {
    securityRules: concat(empty(managementAddresses) ? [] : [
      {
        name: 'AllowManagementAddresses'
        properties: {
          priority: 100
          direction: 'Inbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefixes: managementAddresses
          sourcePortRange: '*'
          destinationAddressPrefix: subnets.management
          destinationPortRange: '22'
        }
      }
    ], bastion ? [
      {
        name: 'AllowBastion'
        properties: {
          priority: 110
          direction: 'Inbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefix: subnets.bastion
          sourcePortRange: '*'
          destinationAddressPrefix: subnets.management
          destinationPortRange: '22'
        }
      }
    ] : [], [
      {
        name: 'DenyAllInbound'
        properties: {
          priority: 4000
          direction: 'Inbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
    ])
  }
}

resource clientRulesDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: clientRules
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

resource endpointRulesDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: endpointRules
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

resource databaseRulesDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: databaseRules
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

resource managementRulesDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: managementRules
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

@description('Of the subnets of both apps.')
output clients string = clientRules.id
@description('Of the subnet of private endpoints.')
output endpoints string = endpointRules.id
@description('Of the subnet of PostgreSQL.')
output database string = databaseRules.id
@description('Of the management subnet.')
output management string = managementRules.id
