// One private endpoint, with its name in the private DNS zone of its service.

@description('Name of the endpoint.')
param name string
@description('Region of the endpoint: that of the network.')
param location string
@description('Tags of every resource.')
param tags object
@description('Resource id of the subnet that holds private endpoints.')
param subnetId string
@description('Resource id of what the endpoint leads to.')
param targetId string
@description('Which part of the target: blob, queue, table, vault, redisEnterprise, account.')
param groupId string
@description('Resource ids of the private DNS zones that get the address.')
param zoneIds string[]

resource endpoint 'Microsoft.Network/privateEndpoints@2025-09-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    subnet: {
      id: subnetId
    }
    customNetworkInterfaceName: '${name}-nic'
    privateLinkServiceConnections: [
      {
        name: name
        properties: {
          privateLinkServiceId: targetId
          groupIds: [
            groupId
          ]
        }
      }
    ]
  }
}

resource zones 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2025-09-01' = {
  parent: endpoint
  name: 'default'
  properties: {
    privateDnsZoneConfigs: [for (zoneId, index) in zoneIds: {
      name: 'zone-${index}'
      properties: {
        privateDnsZoneId: zoneId
      }
    }]
  }
}

@description('Resource id of the endpoint.')
output id string = endpoint.id
