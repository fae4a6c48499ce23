// How many instances the server has: by processor, memory, requests and open connections. Scaling in is slower than the drain.

@description('Name of the rules.')
param name string
@description('Region.')
param location string
@description('Tags of every resource.')
param tags object
@description('Plan whose instances are counted.')
param planId string
@description('App whose requests and connections are counted.')
param siteId string
@description('Fewest instances.')
@minValue(1)
param minimumInstances int
@description('Most instances.')
@minValue(1)
param maximumInstances int

resource scaling 'Microsoft.Insights/autoscalesettings@2022-10-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    enabled: true
    targetResourceUri: planId
    profiles: [
      {
        name: 'load'
        capacity: {
          minimum: string(minimumInstances)
          maximum: string(maximumInstances)
          default: string(minimumInstances)
        }
        rules: [
          {
            metricTrigger: {
              metricResourceUri: planId
              metricName: 'CpuPercentage'
              statistic: 'Average'
              timeAggregation: 'Average'
              timeGrain: 'PT1M'
              timeWindow: 'PT10M'
              operator: 'GreaterThan'
              threshold: 70
            }
            scaleAction: {
              direction: 'Increase'
              type: 'ChangeCount'
              value: '1'
              cooldown: 'PT5M'
            }
          }
          {
            metricTrigger: {
              metricResourceUri: planId
              metricName: 'CpuPercentage'
              statistic: 'Average'
              timeAggregation: 'Average'
              timeGrain: 'PT1M'
              timeWindow: 'PT10M'
              operator: 'LessThan'
              threshold: 30
            }
            scaleAction: {
              direction: 'Decrease'
              type: 'ChangeCount'
              value: '1'
              cooldown: 'PT10M'
            }
          }
          {
            metricTrigger: {
              metricResourceUri: planId
              metricName: 'MemoryPercentage'
              statistic: 'Average'
              timeAggregation: 'Average'
              timeGrain: 'PT1M'
              timeWindow: 'PT10M'
              operator: 'GreaterThan'
              threshold: 80
            }
            scaleAction: {
              direction: 'Increase'
              type: 'ChangeCount'
              value: '1'
              cooldown: 'PT5M'
            }
          }
          {
            metricTrigger: {
              metricResourceUri: planId
              metricName: 'MemoryPercentage'
              statistic: 'Average'
              timeAggregation: 'Average'
              timeGrain: 'PT1M'
              timeWindow: 'PT10M'
              operator: 'LessThan'
              threshold: 50
            }
            scaleAction: {
              direction: 'Decrease'
              type: 'ChangeCount'
              value: '1'
              cooldown: 'PT10M'
            }
          }
          {
            metricTrigger: {
              metricResourceUri: siteId
              metricName: 'Requests'
              statistic: 'Average'
              timeAggregation: 'Total'
              timeGrain: 'PT1M'
              timeWindow: 'PT5M'
              dividePerInstance: true
              operator: 'GreaterThan'
              // Sums over the five minutes: 500 a minute and instance.
              threshold: 2500
            }
            scaleAction: {
              direction: 'Increase'
              type: 'ChangeCount'
              value: '1'
              cooldown: 'PT5M'
            }
          }
          {
            metricTrigger: {
              metricResourceUri: siteId
              metricName: 'Requests'
              statistic: 'Average'
              timeAggregation: 'Total'
              timeGrain: 'PT1M'
              timeWindow: 'PT5M'
              dividePerInstance: true
              operator: 'LessThan'
              threshold: 500
            }
            scaleAction: {
              direction: 'Decrease'
              type: 'ChangeCount'
              value: '1'
              cooldown: 'PT10M'
            }
          }
          // Open streams ask for nothing and use no processor: only their number shows them.
          {
            metricTrigger: {
              metricResourceUri: siteId
              metricName: 'AppConnections'
              statistic: 'Average'
              timeAggregation: 'Average'
              timeGrain: 'PT1M'
              timeWindow: 'PT10M'
              dividePerInstance: true
              operator: 'GreaterThan'
              threshold: 4000
            }
            scaleAction: {
              direction: 'Increase'
              type: 'ChangeCount'
              value: '1'
              cooldown: 'PT5M'
            }
          }
          {
            metricTrigger: {
              metricResourceUri: siteId
              metricName: 'AppConnections'
              statistic: 'Average'
              timeAggregation: 'Average'
              timeGrain: 'PT1M'
              timeWindow: 'PT10M'
              dividePerInstance: true
              operator: 'LessThan'
              threshold: 1000
            }
            scaleAction: {
              direction: 'Decrease'
              type: 'ChangeCount'
              value: '1'
              cooldown: 'PT10M'
            }
          }
        ]
      }
    ]
  }
}
