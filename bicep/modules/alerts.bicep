// Alerts, made from the table of signals: `signals.json` is what `function-handlers signals --json` prints of it.

@description('What every name begins with.')
param prefix string
@description('Region.')
param location string
@description('Tags of every resource.')
param tags object
@description('Workspace of Application Insights, whose metrics are asked.')
param workspaceId string
@description('Resource id of the web app.')
param siteId string
@description('Resource id of its plan.')
param planId string
@description('Resource id of PostgreSQL.')
param databaseId string
@description('Connections that PostgreSQL takes (max_connections less those it reserves).')
@minValue(1)
param databaseConnections int
@description('Resource id of the cache; empty for none.')
param redisId string
@description('Resource id of the storage account.')
param storageId string
@description('Whether the rules are on. Off, they are there and silent.')
param enabled bool
@description('Addresses told of what is to be looked at today.')
param mailAddresses string[]
@description('Webhook of the team\'s channel; empty for none.')
@secure()
param chatWebhook string
@description('Webhook of whoever is on call; empty for none.')
@secure()
param pageWebhook string

// Rows differ in what they have; any() keeps the compiler from giving them one type.
var table = any(loadJsonContent('../signals.json'))
var signals = table.signals
var kinds = toObject(table.metrics, metric => metric.name, metric => metric.kind)
var targets = {
  'Microsoft.Web/sites': siteId
  'Microsoft.Web/serverfarms': planId
  'Microsoft.DBforPostgreSQL/flexibleServers': databaseId
  'Microsoft.Cache/redisEnterprise': redisId
  'Microsoft.Storage/storageAccounts': storageId
}
// Windows that Azure Monitor has, for those the table asks for: the next longer.
var queryWindows = {
  '1': 'PT1M'
  '3': 'PT5M'
  '5': 'PT5M'
  '10': 'PT10M'
  '15': 'PT15M'
  '30': 'PT30M'
  '60': 'PT1H'
}
var metricWindows = {
  '1': 'PT1M'
  '3': 'PT5M'
  '5': 'PT5M'
  '10': 'PT15M'
  '15': 'PT15M'
  '30': 'PT30M'
  '60': 'PT1H'
}
var aggregations = {
  highest: 'Maximum'
  average: 'Average'
  lowest: 'Minimum'
  total: 'Total'
}
var levels = flatten(map(signals, signal => concat(signal.warn == null ? [] : [
  {
    name: '${signal.name}-warn'
    signal: signal
    level: signal.warn
  }
], signal.critical == null ? [] : [
  {
    name: '${signal.name}-critical'
    signal: signal
    level: signal.critical
  }
])))
var ours = filter(levels, item => contains(item.signal.source, 'only'))
// The month's cost is the budget's own to tell.
var platform = filter(levels, item => !contains(item.signal.source, 'only') && item.signal.source.resource != 'Microsoft.Consumption/budgets' && !empty(targets[item.signal.source.resource]))

@description('A condition on the attributes of a metric, in the query language: `5*` matches what begins with 5.')
func matching(attributes object) string => join(map(items(attributes), pair => endsWith(pair.value, '*') ? 'tostring(Properties["${pair.key}"]) startswith "${replace(pair.value, '*', '')}"' : 'tostring(Properties["${pair.key}"]) == "${pair.value}"'), ' and ')

// What a metric's samples of a window come to. One sample is a minute's sum, count, least and most of one process.
var values = {
  highest: 'summarize value = max(coalesce(Max, Sum))'
  throughout: 'summarize least = min(coalesce(Min, Sum)) by AppRoleInstance | summarize value = max(least)'
  average: 'summarize sums = sum(Sum), samples = sum(ItemCount) by AppRoleInstance | summarize value = max(sums / samples)'
  lowest: 'summarize value = min(coalesce(Min, Sum))'
  total: 'summarize value = sum(Sum)'
  // Of minutes' means, weighted: what there is of a histogram in Application Insights.
  p95: 'extend mean = Sum / ItemCount | summarize value = percentilew(mean, ItemCount, 95)'
}

resource page 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: '${prefix}-page'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: 'page'
    enabled: true
    emailReceivers: map(mailAddresses, address => {
      name: address
      emailAddress: address
      useCommonAlertSchema: true
    })
    webhookReceivers: empty(pageWebhook) ? [] : [
      {
        name: 'on-call'
        serviceUri: pageWebhook
        useCommonAlertSchema: true
      }
    ]
  }
}

resource chat 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: '${prefix}-chat'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: 'chat'
    enabled: true
    webhookReceivers: empty(chatWebhook) ? [] : [
      {
        name: 'channel'
        serviceUri: chatWebhook
        useCommonAlertSchema: true
      }
    ]
  }
}

resource mail 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: '${prefix}-mail'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: 'mail'
    enabled: true
    emailReceivers: map(mailAddresses, address => {
      name: address
      emailAddress: address
      useCommonAlertSchema: true
    })
  }
}

var channels = {
  page: page.id
  chat: chat.id
  mail: mail.id
}

resource queries 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [for item in ours: {
  name: '${prefix}-${item.name}'
  location: location
  tags: tags
  kind: 'LogAlert'
  properties: {
    displayName: '${prefix} ${item.name}'
    description: item.signal.meaning
    enabled: enabled
    severity: item.level.severity
    scopes: [
      workspaceId
    ]
    evaluationFrequency: item.level.minutes == 1 ? 'PT1M' : 'PT5M'
    windowSize: queryWindows[string(item.level.minutes)]
    autoMitigate: true
    // A new workspace has no table yet.
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          query: join(concat([
            'AppMetrics'
            'where Name == "${item.signal.source.metric}"'
          ], empty(item.signal.source.only) ? [] : [
            'where ${matching(item.signal.source.only)}'
          ], item.signal.measure == 'share' ? [
            // A counter's sample adds its value, a histogram's the number of what it saw.
            'extend weight = ${kinds[item.signal.source.metric] == 'histogram' ? 'toreal(ItemCount)' : 'Sum'}'
            'summarize hits = sumif(weight, ${matching(item.signal.matching)}), whole = sum(weight)'
            'extend value = 100.0 * hits / whole'
          ] : [
            values[item.signal.measure]
          ], item.signal.measure != 'share' && item.signal.unit == 'percent' ? [
            'extend value = 100.0 * value'
          ] : [], [
            'where isfinite(value)'
            'project value'
          ]), ' | ')
          timeAggregation: item.signal.measure == 'lowest' ? 'Minimum' : 'Maximum'
          metricMeasureColumn: 'value'
          operator: item.signal.measure == 'lowest' ? 'LessThanOrEqual' : 'GreaterThanOrEqual'
          threshold: item.level.at
          failingPeriods: {
            numberOfEvaluationPeriods: 1
            minFailingPeriodsToAlert: 1
          }
        }
      ]
    }
    actions: {
      actionGroups: [
        channels[item.level.channel]
      ]
    }
  }
}]

resource metrics 'Microsoft.Insights/metricAlerts@2018-03-01' = [for item in platform: {
  name: '${prefix}-${item.name}'
  location: 'global'
  tags: tags
  properties: {
    description: item.signal.meaning
    enabled: enabled
    severity: item.level.severity
    scopes: [
      targets[item.signal.source.resource]
    ]
    evaluationFrequency: 'PT1M'
    windowSize: metricWindows[string(item.level.minutes)]
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: item.name
          metricName: item.signal.source.metric
          metricNamespace: item.signal.source.resource
          // 0 is the least there is: it counts when the whole window has it, not when one probe of a swap does.
          timeAggregation: item.signal.measure == 'lowest' && item.level.at == 0 ? 'Maximum' : aggregations[item.signal.measure]
          operator: item.signal.measure == 'lowest' ? 'LessThanOrEqual' : 'GreaterThanOrEqual'
          // Azure's alerts know no share of another metric: the whole is the size of the server.
          threshold: item.signal.source.of == null ? item.level.at : item.level.at * databaseConnections / 100
        }
      ]
    }
    actions: [
      {
        actionGroupId: channels[item.level.channel]
      }
    ]
  }
}]

@description('Action group of what is to be looked at today.')
output mailGroupId string = mail.id
